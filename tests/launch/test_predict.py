"""`perceiver predict` and `perceiver embed`: each new sample is answered once, as an evaluation answers it."""

import csv
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import load
from data_shards.loading.cuts import Cuts
from data_shards.sources import table
from data_shards.sources.prediction.new_samples import NewSamples
from launch.answers import answering, commands
from launch.answers.commands import Asked
from launch.answers.loaded_run import load_run
from launch.answers.parts import Parts
from launch.cli import main
from launch.lifecycle.run_folder import RunFolder
from launch.run.creation import open_run
from launch.run.loaders import identity
from launch.run.trained import evaluation
from model.perceiver import Perceiver
from trainer.distributed.world import World
from trainer.health.run_lock import RunLock

MODEL = """
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 8, global_batch: 8}
"""
PICTURES = f"""
data: {{inputs: {{image: {{modality: image, height: 8, width: 8}}}}, lanes: 2, window: 8}}
model:
  inputs: {{image: {{}}}}
  outputs: {{label: {{kind: label, num_classes: 3}}}}{MODEL}"""
NUM_TEST, NUM_TRAIN = 11, 8
MakeRun = Callable[..., Path]


def picture(path: Path, seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path.name


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make a run whose network has weights of no training, from the rows of a table."""

    def make(config: str, rows: list[dict[str, Any]], name: str = "run") -> Path:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        table.build(file, tmp_path / f"{name}_shards")
        (tmp_path / f"{name}.yaml").write_text(config)
        found = load(tmp_path / f"{name}.yaml", [f"data.shards={tmp_path}/{name}_shards"])
        folder = RunFolder(tmp_path / name)
        open_run(found, folder)
        generator = torch.Generator().manual_seed(1)
        weights = Perceiver(found.model, seed=1).state_dict()
        # Heads begin with zeros, which would answer every sample alike.
        moved = {key: of + 0.2 * torch.randn(of.shape, generator=generator) for key, of in weights.items()}
        save(folder.checkpoints_folder, 8, moved, identity=identity(found), score=0.5)
        return folder.path

    return make


@pytest.fixture
def run(tmp_path: Path, make_run: MakeRun) -> Path:
    rows = [
        {
            "image": picture(tmp_path / f"{number}.png", number),
            "label": f"class {number % 3}",
            "split": "test" if number < NUM_TEST else "train",
        }
        for number in range(NUM_TEST + NUM_TRAIN)
    ]
    return make_run(PICTURES, rows)


def quiet_note(_sentence: str) -> None:
    """Tell nothing."""


def quiet(_done: int, _total: int) -> None:
    """Show no progress."""


def predicted(run: Path, *paths: Path | str, out: Path, **options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the rows of a table of JSON lines."""
    assert commands.predict(Asked(run, tuple(map(str, paths)), out, **options), quiet, as_json=False) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def refusal(*words: Path | str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the command says and ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["perceiver", *map(str, words)])
    with pytest.raises(SystemExit) as leaving:
        main.main()
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_the_accuracy_of_the_table_is_that_of_an_evaluation_to_the_digit(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation.main(run, as_json=True)
    expected = json.loads(capsys.readouterr().out)["metrics"]["label"]["accuracy"]["all"]
    for batch in (0, 3):
        rows = predicted(run, f"{run}_shards", out=tmp_path / f"{batch}.jsonl", top=3, batch=batch)
        assert len(rows) == NUM_TEST
        assert sum(row["label"] == row["label_true"] for row in rows) / len(rows) == expected
        assert len({row["key"] for row in rows}) == NUM_TEST
        assert {row["shard"] for row in rows} == {"test/000000.tar"}
        assert all(
            1 >= row["label_probability"] >= row["label_2_probability"] >= row["label_3_probability"] for row in rows
        )
        assert all(
            {row[name] for name in ("label", "label_2", "label_3")} == {f"class {n}" for n in range(3)} for row in rows
        )
    assert {row["label"] for row in rows} != {"class 0"}, "the network answers all alike: nothing is compared"


def test_files_folders_and_tables_are_answered_alike_and_in_their_order(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for place in ("a/same.png", "b/same.png", "b/.hidden.png", "notes.txt"):
        picture(folder / place.replace(".txt", ".png"), len(place) + ord(place[0]))
    (folder / "notes.png").rename(folder / "notes.txt")
    (folder / "rows.csv").write_text("image,comment,key\na/same.png,x,mine\nb/same.png,y,\n")
    rows = predicted(run, folder / "b", folder, folder / "rows.csv", out=tmp_path / "out.jsonl")
    keys = [f"{folder}/b/same.png", f"{folder}/a/same.png", "mine", f"{folder}/rows.csv:3"]
    assert [row["key"] for row in rows] == keys
    by_key = {row.pop("key"): row for row in rows}
    assert by_key[keys[0]] == by_key[keys[3]] != by_key[keys[1]] == by_key["mine"]


def test_what_cannot_be_read_is_counted_named_and_skipped(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "0.png"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "bad.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "new" / "text.odt").write_text("no picture")
    (tmp_path / "new" / "rows.csv").write_text(f"image\n{good}\nmissing.png\n")
    out = tmp_path / "out.jsonl"
    paths = [tmp_path / "new", good, tmp_path / "new" / "text.odt", tmp_path / "new" / "rows.csv"]
    assert len(predicted(run, *paths, out=out)) == 2
    told = capsys.readouterr()
    assert "2 samples answered" in told.out
    assert "3 skipped" in told.out
    listed = [json.loads(line) for line in (tmp_path / "out.jsonl.skipped.jsonl").read_text().splitlines()]
    reasons = {Path(row["key"]).name: row["reason"] for row in listed}
    assert reasons.keys() == {"bad.png", "text.odt", "rows.csv:3"}
    assert "No such file" in reasons["rows.csv:3"]
    assert ".odt" in told.err
    assert not list(tmp_path.glob("*.unfinished"))


def test_all_that_is_said_of_samples_that_cannot_be_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.png").rename(tmp_path / "ä.png")
    bad = [tmp_path / f"bad{number:02d}.png" for number in range(11, -1, -1)]
    for path in bad:
        path.write_bytes(b"no picture")
    out, seen = tmp_path / "out.jsonl", []
    paths = (*map(str, bad), str(tmp_path / "ä.png"))
    commands.predict(Asked(run, paths, out), lambda *done: seen.append(done), as_json=False)
    assert "ä.png".encode() in out.read_bytes()
    assert seen == [(8, 13), (13, 13)]
    skipped = tmp_path / "out.jsonl.skipped.jsonl"
    reasons = {row["key"]: row["reason"] for row in map(json.loads, skipped.read_text().splitlines())}
    sentences = [f"{path}: {reasons[str(path)]}" for path in sorted(bad)]
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"1 sample answered: {out}",
        f"12 skipped, listed in {skipped}:",
        *(f"  {sentence}" for sentence in sentences[:10]),
        "  and 2 more",
    ]
    assert told.err == ""
    out = tmp_path / "other.jsonl"
    commands.predict(Asked(run, paths, out), quiet, as_json=True)
    expected = {"out": str(out), "samples": 1, "skipped": sentences, "notes": [], "num_skipped": 12, "cut": {}}
    assert json.loads(capsys.readouterr().out) == expected


def test_who_is_killed_after_the_table_is_there_is_told_of_it_and_nothing_is_answered_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(run, (str(tmp_path / "0.png"),), tmp_path / "out.jsonl")

    def killed(_parts: Parts) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            commands.predict(asked, quiet, as_json=False)
    written = asked.out.stat().st_ino
    assert commands.predict(asked, lambda *_: pytest.fail("answered again"), as_json=False) == 0
    assert asked.out.stat().st_ino == written
    assert not list(tmp_path.glob("*.unfinished"))
    assert capsys.readouterr().out == f"1 sample answered: {asked.out}\n"


def test_a_further_rank_answers_its_share_and_leaves_the_rest_to_the_first(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load_run(run).trained
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(4))
    # What the first rank says: the samples, and which parts are missing.
    said: list[object] = [answering.samples_of(network, paths, "", quiet_note), [0, 1, 2, 3]]
    own, exchanges, closed, pinned = list[object](), list[object](), list[World](), list[object]()

    def broadcast(_world: World, item: object) -> object:
        own.append(item)
        return said[len(own) - 1]

    load = NewSamples.loader

    def loader(samples: NewSamples, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        pinned.append(options["pinned"])
        return load(samples, *args, **options)

    monkeypatch.setattr(commands, "joined", lambda _seconds: World(1, 2, 0, torch.device("cpu")))
    monkeypatch.setattr(commands, "trained", lambda *_: network)
    monkeypatch.setattr(World, "broadcast", broadcast)
    monkeypatch.setattr(World, "gather", lambda _world, item: [item, item])
    monkeypatch.setattr(World, "maximum", lambda _world, tensor: exchanges.append(tensor) or tensor)
    monkeypatch.setattr(World, "close", lambda world: closed.append(world))
    monkeypatch.setattr(NewSamples, "loader", loader)
    parts = Parts(tmp_path / "out.jsonl", 4, 1)
    parts.folder.mkdir()
    assert commands.predict(Asked(run, paths, parts.out, batch=1), quiet, as_json=False) == 0
    assert [path.name for path in parts.paths if path.exists()] == ["000002", "000003"]
    assert own == [None, []], "it looks for nothing itself"
    assert pinned == [False]
    # What is asked, weights, samples, lock, plan, two parts, end.
    assert (len(exchanges), len(closed)) == (8, 1)
    told = capsys.readouterr()
    assert (told.out, told.err, parts.out.exists()) == ("", "", False)


def test_what_is_answered_is_known_by_name_size_and_time(run: Path, tmp_path: Path) -> None:
    network = load_run(run).trained

    def identity(*paths: Path | str) -> str:
        return commands._identity(answering.samples_of(network, tuple(map(str, paths)), "", quiet_note))

    found = [identity(tmp_path / "0.png"), identity(tmp_path / "1.png"), identity(f"{run}_shards")]
    os.utime(tmp_path / "0.png", (5, 5))
    found.append(identity(tmp_path / "0.png"))
    (tmp_path / "0.png").write_bytes(b"longer than before" * 100)
    os.utime(tmp_path / "0.png", (5, 5))
    found.append(identity(tmp_path / "0.png"))
    found.append(identity(f"{run}_shards", tmp_path / "0.png"))
    assert len(set(found)) == 6
    assert identity(f"{run}_shards") == found[2]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_every_format_holds_the_same_answers(run: Path, tmp_path: Path, suffix: str) -> None:
    expected = predicted(run, tmp_path / "0.png", tmp_path / "1.png", out=tmp_path / "expected.jsonl", top=2)
    out = tmp_path / f"out{suffix}"
    commands.predict(Asked(run, (str(tmp_path / "0.png"), str(tmp_path / "1.png")), out, top=2), quiet, as_json=True)
    if suffix == ".parquet":
        from pyarrow import parquet

        found = parquet.read_table(out).to_pylist()
    elif suffix == ".csv":
        with out.open() as file:
            found = [{k: float(v) if k.endswith("ity") else v for k, v in row.items()} for row in csv.DictReader(file)]
    else:
        found = [json.loads(line) for line in out.read_text().splitlines()]
    assert found == expected


def test_a_command_that_was_interrupted_resumes_and_ends_as_if_it_had_not_been(run: Path, tmp_path: Path) -> None:
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(10))
    (tmp_path / "3.png").write_bytes(b"broken")
    expected = predicted(run, *paths, out=tmp_path / "whole.jsonl", batch=2)
    out, seen = tmp_path / "out.jsonl", []

    def killed(done: int, _total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commands.predict(Asked(run, paths, out, batch=2), killed, as_json=False)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"another command was interrupted there.*top: 1 then, 2 now"):
        commands.predict(Asked(run, paths, out, batch=2, top=2), quiet, as_json=False)
    lock = tmp_path / "out.jsonl.unfinished" / "lock"
    with RunLock(lock), pytest.raises(ValueError, match=r"process .* on .*, writes the same answers; wait for it"):
        commands.predict(Asked(run, paths, out, batch=2), quiet, as_json=False)
    # What a job that was killed on another node leaves.
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "yesterday"}))
    assert commands.predict(Asked(run, paths, out, batch=2), lambda done, _: seen.append(done), as_json=False) == 0
    assert seen == [8, 10], "what was answered before is not answered again"
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    skipped, expected_skipped = (tmp_path / f"{name}.jsonl.skipped.jsonl" for name in ("out", "whole"))
    assert skipped.read_bytes() == expected_skipped.read_bytes()
    assert len(expected) == 9
    with pytest.raises(ValueError, match="is there already"):
        commands.predict(Asked(run, paths, out, batch=2), quiet, as_json=False)


def test_a_command_that_answered_nothing_blocks_no_name(tmp_path: Path) -> None:
    one, other = Parts(tmp_path / "out.jsonl", 4, 2), Parts(tmp_path / "out.jsonl", 6, 2)
    one.folder.mkdir()
    assert not one.open({"step": 0}, ())
    one.note_cuts(1, Cuts())
    one.skipped_path.write_text("{}\n")
    assert not other.open({"step": 20}, ())
    assert [path.name for path in other.folder.iterdir()] == ["plan.json"]
    other.paths[2].write_bytes(b"an answer")
    with pytest.raises(ValueError, match=r"another command was interrupted there \(step: 20 then, 0 now"):
        one.open({"step": 0}, ())
    assert other.paths[2].exists()


def test_the_batch_changes_no_answer_and_bad_neighbours_none(run: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    one = predicted(run, *paths, out=tmp_path / "one.jsonl", batch=1)
    (tmp_path / "bad.png").write_bytes(b"bad")
    all_ = predicted(run, *paths, tmp_path / "bad.png", out=tmp_path / "all.jsonl", batch=8)
    assert [row["label"] for row in one] == [row["label"] for row in all_]
    np.testing.assert_allclose(
        [row["label_probability"] for row in one], [row["label_probability"] for row in all_], rtol=1e-4
    )


def test_three_lines_of_python_answer_files(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    found = loaded.predict([tmp_path / "0.png", tmp_path / "1.png"], top=2)
    assert found == predicted(run, tmp_path / "0.png", tmp_path / "1.png", out=tmp_path / "out.jsonl", top=2)
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"bad\.png: .*not an image"):
        loaded.predict([tmp_path / "bad.png"])
    (alone,) = loaded.predict([tmp_path / "0.png"])
    assert list(alone) == ["key", "label", "label_probability"]


def test_in_python_as_many_are_answered_at_once_as_there_are_or_the_run_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, load = list[tuple[object, ...]](), NewSamples.loader

    def loader(samples: NewSamples, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        asked.append(args)
        return load(samples, *args, **options)

    monkeypatch.setattr(NewSamples, "loader", loader)
    loaded, paths = load_run(run), [tmp_path / f"{number}.png" for number in range(9)]
    assert [len(loaded.predict(paths[:count])) for count in (2, 9)] == [2, 9]
    assert len(loaded.predict(paths, batch=4)) == 9
    assert asked == [(2, range(1), None), (8, range(2), None), (4, range(3), None)]


@pytest.mark.parametrize("whole", [True, False])
def test_latents_are_written_with_their_keys(run: Path, tmp_path: Path, whole: bool) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    paths = tuple(str(tmp_path / name) for name in ("0.png", "bad.png", "1.png"))
    # Their mean, unless all are asked for.
    options: dict[str, Any] = {"whole": True} if whole else {}
    for suffix in (".safetensors", ".npy"):
        commands.embed(Asked(run, paths, tmp_path / f"out{suffix}", batch=1, **options), quiet, as_json=True)
        assert (tmp_path / f"out{suffix}.skipped.jsonl").exists()
    found = np.load(tmp_path / "out.npy")
    with safe_open(tmp_path / "out.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("latents"), found)
        keys = json.loads(file.metadata()["keys"])
    assert keys == json.loads((tmp_path / "out.keys.json").read_text()) == [paths[0], paths[2]]
    network = load_run(run).network
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in (paths[0], paths[2])]))
    with torch.no_grad():
        expected = network.latents({"image": pixels}, {"image": torch.tensor([8, 8])})
    np.testing.assert_allclose(found, expected if whole else expected.mean(dim=1), rtol=1e-4, atol=1e-6)


def test_latents_of_shards_and_files_are_in_order_and_known_by_shard_and_key(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (f"{run}_shards", str(tmp_path / "0.png"), str(tmp_path / "1.png"))
    rows = predicted(run, *paths, out=tmp_path / "out.jsonl")
    asked = Asked(run, paths, tmp_path / "out.npy", batch=4, whole=True)

    def killed(done: int, _total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commands.embed(asked, killed, as_json=True)
    with pytest.raises(ValueError, match=r"\(latents: whole then, mean now\)"):
        commands.embed(replace(asked, whole=False), quiet, as_json=True)
    capsys.readouterr()
    commands.embed(asked, quiet, as_json=True)
    assert capsys.readouterr().err == "perceiver: resumes: 3 of 4 parts are there\n"
    keys = json.loads((tmp_path / "out.keys.json").read_text())
    assert keys == [f"{row['shard']}/{row['key']}" for row in rows[:NUM_TEST]] + list(paths[1:])
    assert np.load(tmp_path / "out.npy").shape == (NUM_TEST + 2, 4, 16)


def test_the_first_latents_alone_answer_as_the_network_that_is_cut_to_them(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": picture(tmp_path / f"{n}.png", n), "label": f"class {n % 3}"} for n in range(9)]
    run = make_run(PICTURES.replace("num_latents: 4", "num_latents: 4\n  nested_latents: [2, 4]"), rows)
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    pixels = {"image": torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))}
    lengths = {"image": torch.tensor([8, 8])}
    small = load_run(run).network.cut(2).eval()
    with torch.no_grad():
        answers, latents = small(pixels, lengths)["label"].softmax(dim=1), small.latents(pixels, lengths)
    found = {size: predicted(run, *paths, out=tmp_path / f"{size}.jsonl", top=3, latents=size) for size in (0, 2, 4)}
    assert found[0] == found[4]
    for row, expected in zip(found[2], answers, strict=True):
        likely = {row[f"label{at}"]: row[f"label{at}_probability"] for at in ("", "_2", "_3")}
        assert [likely[f"class {n}"] for n in range(3)] == pytest.approx(expected.tolist(), rel=1e-4)
    probabilities = [[row["label_probability"] for row in found[size]] for size in (2, 4)]
    assert not np.allclose(*probabilities, rtol=1e-3), "the size changes nothing: nothing is compared"
    for whole, expected in ((True, latents), (False, latents.mean(dim=1))):
        out = tmp_path / f"{whole}.npy"
        commands.embed(Asked(run, tuple(paths), out, whole=whole, latents=2), quiet, as_json=True)
        np.testing.assert_allclose(np.load(out), expected, rtol=1e-4, atol=1e-6)
    for command in ("predict", "embed"):
        out = tmp_path / {"predict": "none.csv", "embed": "none.npy"}[command]
        told = refusal(command, run, *paths, "--latents", "3", "--out", out, capsys=capsys, monkeypatch=monkeypatch)
        assert "--latents 3: expected one of 2, 4" in told
        assert not list(tmp_path.glob("none*"))


OUT = ("--out", "{tmp}/a.csv")
REFUSALS = {
    "no ending": (["{run}", "{tmp}/0.png", "--out", "{tmp}/answers"], "expected a name that ends in"),
    "no such file": (["{run}", "{tmp}/none.png", *OUT], "none.png: no such file or folder"),
    "an empty folder": (["{run}", "{tmp}/empty", *OUT], "has no file that the run reads (image:"),
    "nothing can be read": (["{run}", "{tmp}/bad.png", *OUT], "0 of 1 sample can be read"),
    "an unknown ending": (["{run}", "{tmp}/x.odt", *OUT], "is no kind of file that the run reads"),
    "OUT is there": (["{run}", "{tmp}/0.png", "--out", "{tmp}/there.csv"], "there.csv: is there already"),
    "a table of nothing": (["{run}", "{tmp}/other.csv", *OUT], "has no column that the run reads"),
    "an empty table": (["{run}", "{tmp}/empty.csv", *OUT], "empty.csv: has no rows"),
    "a tar": (["{run}", "{tmp}/s.tar", *OUT], "s.tar: is a shard; name its folder"),
    "tars without an index": (["{run}", "{tmp}/tars", *OUT], "`perceiver data index` makes shards"),
    "another split": (["{run}", "{run}_shards", "--split", "x", *OUT], "no split 'x'"),
    "other shards": (
        ["{run}", "{tmp}/sound_shards", "--split", "train", "--out", "{tmp}/a.csv"],
        "has an input of the",
    ),
    "no run": (["{tmp}", "{tmp}/0.png", *OUT], "holds no run"),
    "no checkpoint": (
        ["{run}", "{tmp}/0.png", "--checkpoint", "5", "--out", "{tmp}/a.csv"],
        "--checkpoint 5: expected",
    ),
}


def test_each_slip_is_one_sentence_and_leaves_nothing_behind(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").touch()
    for name, content in {"bad.png": "x", "x.odt": "x", "there.csv": "mine", "s.tar": "x"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "other.csv").write_text("speed,colour\n1,2\n")
    (tmp_path / "empty.csv").write_text("image\n")
    (tmp_path / "sound.jsonl").write_text('{"text": "a text and no picture"}\n')
    table.build(tmp_path / "sound.jsonl", tmp_path / "sound_shards")
    before = sorted(path.name for path in tmp_path.iterdir())
    for slip, (words, expected) in REFUSALS.items():
        typed = [word.format(run=run, tmp=tmp_path) for word in words]
        told = refusal("predict", *typed, capsys=capsys, monkeypatch=monkeypatch)
        assert expected in told, slip
        assert "Traceback" not in told, slip
        assert sorted(path.name for path in tmp_path.iterdir()) == before, slip
    assert (tmp_path / "there.csv").read_text() == "mine"
