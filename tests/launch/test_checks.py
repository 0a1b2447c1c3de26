"""What is wrong with a command is told before its job is queued, by the check that the command makes itself."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import make_run, refusal, run

from launch.answers import request
from launch.answers.request import Asked
from launch.cli import on_cluster
from launch.run.trained import evaluation
from launch.run.trained.network import config_of

__all__ = ["make_run", "run"]
Door = Callable[..., list[dict[str, object]]]
SLIPS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no checkpoint of this step": ("predict", {"checkpoint": "5"}, "--checkpoint 5: expected"),
    "other weights": ("embed", {"weights": "mean", "out": "a.npy"}, "--weights mean: expected trained or ema"),
    "no such file": ("predict", {"paths": ("none.png",)}, "none.png: no such file or folder"),
    "a shard": ("embed", {"paths": ("s.tar",), "out": "a.npy"}, "s.tar: is a shard"),
    "another split": ("predict", {"paths": ("run_shards",), "split": "x"}, "no split 'x'"),
    "another format": ("predict", {"out": "a.npy"}, "a.npy: expected a name that ends in"),
    "another format of latents": ("embed", {"out": "a.csv"}, "a.csv: expected a name that ends in"),
    "OUT is there": ("predict", {"out": "there.csv"}, "there.csv: is there already"),
    "OUT is a link to nothing": ("predict", {"out": "link.csv"}, "link.csv: is there already"),
    "its files are there": ("predict", {"out": "b.csv"}, "b.csv.files: is there already"),
    "its keys are there": ("embed", {"out": "b.npy"}, "b.keys.json: is there already"),
    "a list of skipped samples is there": ("predict", {"out": "c.csv"}, "c.csv.skipped.jsonl: is there already"),
    "that list is there": ("embed", {"out": "c.npy"}, "c.npy.skipped.jsonl: is there already"),
    "OUT below a file": ("predict", {"out": "0.png/a.csv"}, "0.png: is no folder"),
    "a part of the latents": ("embed", {"latents": 2, "out": "a.npy"}, "--latents 2: this network is trained"),
    "eval: no checkpoint of this step": ("eval", {"which": "5"}, "--checkpoint 5: expected"),
    "eval: other weights": ("eval", {"weights": "mean"}, "--weights mean: expected trained or ema"),
    "eval: another split": ("eval", {"split": "x"}, "no split 'x'"),
    "eval: no shards": ("eval", {"overrides": ["data.shards=none"]}, "none/manifest.json: no such file"),
    "eval: a part of the latents": ("eval", {"latents": "2"}, "--latents 2: this network is trained"),
}


def test_each_slip_is_found_before_any_work(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s.tar", "there.csv", "b.keys.json", "c.csv.skipped.jsonl", "c.npy.skipped.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "b.csv.files").mkdir()
    (tmp_path / "link.csv").symlink_to("nothing")
    before, config = sorted(tmp_path.rglob("*")), config_of(run)

    def check(command: str, options: dict[str, Any]) -> None:
        if command == "eval":
            evaluation.check(run, **options)
        else:
            asked = Asked(run, **{"paths": ("0.png",), "out": "a.csv"} | options)
            request.check(command, replace(asked, out=Path(asked.out)), config)

    for slip, (command, options, expected) in SLIPS.items():
        with pytest.raises(ValueError, match=re.escape(expected)):
            check(command, options)
        assert sorted(tmp_path.rglob("*")) == before, slip
    # Latents in this format have their keys within, and no files.
    check("embed", {"out": "b.safetensors"})
    # As many as there are.
    check("predict", {"top": 9})


def test_what_is_wrong_is_the_same_sentence_with_a_cluster_and_without_and_nothing_is_submitted(
    run: Path, tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = door("launch.slurm.door.submit_module", "7")
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ["predict", run, tmp_path / "none.png", "--out", tmp_path / "a.csv"],
        ["embed", tmp_path, tmp_path / "0.png", "--out", tmp_path / "a.npy"],
        ["eval", run, "--split", "x"],
    ):
        here = refusal(*words, capsys=capsys, monkeypatch=monkeypatch)
        # Without a cluster a bar of progress was begun, and hidden.
        assert refusal(*words, "--cluster", "plain", capsys=capsys, monkeypatch=monkeypatch) == here.lstrip()
        assert sorted(tmp_path.rglob("*")) == before
    assert not jobs


def test_what_is_right_is_submitted(run: Path, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = door("launch.slurm.door.submit_module", "7")
    from launch.cli import main

    for words in (["predict", str(run), f"{tmp_path}/0.png", "--out", f"{tmp_path}/new/a.csv"], ["eval", str(run)]):
        monkeypatch.setattr(sys, "argv", ["perceiver", *words, "--cluster", "plain"])
        with pytest.raises(SystemExit) as leaving:
            main.main()
        assert leaving.value.code == 0
    assert [on_cluster.OPTION in job for job in jobs] == [False, False]


def test_a_folder_that_nobody_may_write_is_refused_before_the_work(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions say nothing to root, who may be the one that tests.
    forbidden = [tmp_path]
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in forbidden or not mode & os.W_OK)
    told = refusal(
        "predict", run, tmp_path / "0.png", "--out", tmp_path / "a.csv", capsys=capsys, monkeypatch=monkeypatch
    )
    assert f"{tmp_path}: cannot be written, and --out {tmp_path}/a.csv goes there" in told
    forbidden[:] = [run]
    told = refusal("eval", run, capsys=capsys, monkeypatch=monkeypatch)
    assert f"{run}: cannot be written, and the results go there" in told
