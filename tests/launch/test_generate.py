"""`perceiver generate` continues texts, tokens and arrays, the same from the same seed."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import MOST_SEED, load
from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from launch.answers import generation
from launch.answers.generation import Chosen, Request
from launch.answers.loaded_run import load_run
from launch.cli.main import app
from launch.lifecycle.run_folder import RunFolder
from launch.run.creation import open_run
from launch.run.loaders import identity
from model.generation.sampling import Sampling
from model.perceiver import Perceiver

Door = Callable[..., list[dict[str, Any]]]
NETWORK = """
  cross_attend: {num_heads: 2, qk_width: 16}
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {global_batch: 4}
"""
SECTIONS = {
    "bytes": "{modality: text, num_bytes: 16}",
    "tokens": "{modality: text, tokenizer: own.json, num_tokens: 16}",
    "wave": "{modality: array, shape: [16, 2]}",
    "grid": "{modality: array, shape: [4, 2], axes: [y, x]}",
    "standardized": "{modality: array, shape: [16, 2], standardize: true}",
    "label": "{modality: text, num_bytes: 16}",
}
OUTPUTS = {"label": "{kind: value, num_values: 1, target: number}"}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Callable[[str], RunFolder]:
    """Return a run of new weights, which no test changes."""

    @cache
    def made(name: str) -> RunFolder:
        tmp_path = tmp_path_factory.mktemp(name)
        content = np.zeros((16, 2), np.float32) if name in ("wave", "standardized") else np.zeros((4, 2), np.float32)
        np.save(tmp_path / "array.npy", content)
        is_text = "text" in SECTIONS[name]
        member = Literal(b"the quick fox", "txt") if is_text else Literal((tmp_path / "array.npy").read_bytes(), "npy")
        values = {"number": (1.0,)} if name == "label" else {}
        rows = [Row(number, (member,), values=values) for number in range(4)]
        build_table(rows, tmp_path / "shards", label_names=())
        (tmp_path / "own.json").write_bytes(tokenizers["unigram"].read_bytes())
        text = f"data:\n  inputs: {{stream: {SECTIONS[name]}}}\n  shards: {tmp_path}/shards\n  lanes: 2\n"
        text += "  values: [number]\n" if name == "label" else ""
        text += f"model:\n  inputs: {{stream: {'{embedding_width: 16}' if is_text else '{}'}}}\n"
        text += f"  outputs: {{stream: {OUTPUTS.get(name, '{kind: autoregressive, num_levels: 8}')}}}{NETWORK}"
        (tmp_path / "config.yaml").write_text(text)
        config = load(tmp_path / "config.yaml")
        folder = RunFolder(tmp_path / "run")
        open_run(config, folder)
        weights = Perceiver(config.model, seed=0).state_dict()
        save(folder.checkpoints_folder, 4, weights, identity=identity(config))
        return folder

    return made


def generate(*words: object) -> str:
    result = CliRunner().invoke(app, ["generate", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_texts_are_continued_and_a_prompt_alone_has_the_text_of_its_seed(
    make: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = make("bytes").path
    # As other systems' editors save it: with a byte order mark.
    (tmp_path / "prompts.txt").write_text("\ufeffwörter\n\n", encoding="utf-8")
    asked = ("--prompt", "a quick", "--prompts", tmp_path / "prompts.txt", "--length", 24, "--seed", 3)
    printed = generate(run, *asked, "--json", "--out", tmp_path / "deep" / "er" / "texts.jsonl")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [(row["prompt"], row["seed"], row["step"]) for row in rows] == [
        ("a quick", 3, 4),
        ("wörter", 4, 4),
        ("", 5, 4),
    ]
    assert all(row["text"].startswith(row["prompt"]) and row["continuation"] for row in rows)
    assert (tmp_path / "deep" / "er" / "texts.jsonl").read_text() == printed
    again = ("--prompt", "wörter", "--length", 24, "--seed", 4, "--json", "--out", tmp_path / "deep" / "alone.jsonl")
    (alone,) = generate(run, *again).splitlines()
    assert json.loads(alone) == rows[1]
    shown = generate(run, "--prompt", "a quick", "--length", 24, "--temperature", 0)
    assert shown == generate(run, "--prompt", "a quick", "--length", 24, "--temperature", 0, "--seed", 9)
    assert shown.startswith("a quick")
    # A network of new weights writes any bytes; none of them is a command to a terminal.
    assert "\x1b" not in printed
    assert not any(ord(letter) < 32 for letter in shown.replace("\n", ""))


def test_the_weights_are_those_that_are_asked_for_and_every_place_is_counted(
    make: Callable[[str], RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], door: Door
) -> None:
    run = make("bytes").path
    loaded = replace(load_run(run), notes=("a note",))
    asked = door("launch.answers.generation.load_run", loaded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # What a terminal hands on of bytes that are no UTF-8.
    request = Request(("a", "b\udcff"), None, 3, Sampling(0.0), seed=0, out=None, as_json=True)
    seen: list[tuple[int, int]] = []
    chosen = Chosen("4", "trained", trust_code=True)
    assert generation.main(run, request, chosen, lambda done, total: seen.append((done, total))) == 0
    assert asked == [
        {"path": run, "checkpoint": "4", "weights": "trained", "device": "cuda", "latents": 0, "trust_code": True}
    ]
    told = capsys.readouterr()
    assert told.err == "perceiver: a note\n"
    assert [json.loads(line)["prompt"] for line in told.out.splitlines()] == ["a", "b\udcff"]
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_prompt_has_at_most_so_many_bytes(
    make: Callable[[str], RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_MOST_BYTES", 3)
    (tmp_path / "prompts.txt").write_text("abc")
    asked = (make("bytes").path, "--prompts", tmp_path / "prompts.txt", "--length", 1, "--json")
    assert json.loads(generate(*asked))["prompt"] == "abc"
    (tmp_path / "prompts.txt").write_text("abcd")
    with pytest.raises(ValueError, match=r"prompts\.txt: has more than 3 bytes"):
        generate(*asked)


def test_tokens_are_continued_with_those_that_texts_have(make: Callable[[str], RunFolder]) -> None:
    (line,) = generate(make("tokens").path, "--prompt", "the quick", "--length", 30, "--json").splitlines()
    row = json.loads(line)
    assert row["text"].startswith("the quick")
    assert "<mask>" not in row["text"]
    assert "<pad>" not in row["text"]


@pytest.mark.parametrize(("name", "beginning", "length"), [("wave", (3, 2), 20), ("grid", (1, 2), 3)])
def test_arrays_are_continued_from_files_and_from_nothing(
    name: str, beginning: tuple[int, int], length: int, make: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run, given = make(name).path, np.linspace(-0.9, 0.9, beginning[0] * beginning[1]).reshape(beginning)
    np.save(tmp_path / "given.npy", given)
    (tmp_path / "prompts.txt").write_text(f"{tmp_path}/given.npy\n\n")
    out = tmp_path / "deep" / "er" / "out"
    printed = generate(run, "--prompts", tmp_path / "prompts.txt", "--length", length, "--out", out)
    assert printed == f"{out}: 2 arrays, 0.npy and so on\n"
    whole, new = (np.load(out / f"{number}.npy") for number in range(2))
    assert whole.shape == (beginning[0] + length, beginning[1])
    assert new.shape == (length, beginning[1])
    np.testing.assert_allclose(whole[: beginning[0]], given, rtol=1e-6)
    levels = (new + 1) * 4 - 0.5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("label", (), "its network continues nothing: no output of it is of kind autoregressive"),
        (
            "bytes",
            ("--top-p", "0", "--temperature", "-1"),
            r"--temperature: must be 0, or a number from 1e-09 on.*\n--top-p: must be",
        ),
        ("bytes", ("--prompts", "none.txt"), r"none\.txt: cannot be read"),
        ("bytes", ("--prompts", "EMPTY"), "expected a prompt a line, and it is empty"),
        ("bytes", ("--prompts", "LATIN"), r"LATIN: expected prompts in UTF-8, one a line \("),
        ("bytes", ("--seed", MOST_SEED), rf"--seed: must be from 0 to {2**63 - 1 - 2**28}, got {MOST_SEED}"),
        ("bytes", ("--out", "EMPTY"), "is there already"),
        ("bytes", ("--out", "BELOW"), r"--out .*EMPTY/below/texts\.jsonl: cannot be written: .*EMPTY is no folder"),
        ("bytes", ("--checkpoint", "7"), "checkpoint 7: expected newest"),
        ("wave", (), "--out: is needed, a folder for the arrays that continue inputs.stream"),
        ("wave", ("--prompt", "EMPTY", "--out", "out"), r"^[^ ]*EMPTY: .*not an array; expected npy"),
        ("wave", ("--prompt", "OTHER", "--out", "out"), r"array of shape \(5, 3\); expected \(any, 2\)"),
        (
            "grid",
            ("--length", "5", "--out", "out"),
            "more than the 4 entries of data.inputs.stream, with 0 of no prompt",
        ),
        ("standardized", ("--out", "out"), "its own mean, which nobody knows"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    name: str, words: tuple[object, ...], sentence: str, make: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    (tmp_path / "EMPTY").write_text("")
    # A program is no folder either.
    (tmp_path / "EMPTY").chmod(0o755)
    (tmp_path / "LATIN").write_bytes("wörter".encode("latin-1"))
    np.save(tmp_path / "OTHER.npy", np.zeros((5, 3)))
    files: dict[object, Any] = {name: tmp_path / name for name in ("EMPTY", "LATIN", "out")}
    files["OTHER"] = tmp_path / "OTHER.npy"
    files["BELOW"] = tmp_path / "EMPTY" / "below" / "texts.jsonl"
    run = make(name).path
    with pytest.raises(ValueError, match=sentence):
        generate(run, *(files.get(word, word) for word in words))
    assert not (tmp_path / "out").exists()
