"""Bad input gets one sentence that says where and what to do, a status that is not zero, and loses nothing."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_shards.format.manifest import VERSION
from data_shards.format.tar_index import TarIndex
from launch.chaos.disk import filled, small_disk
from launch.cli import main

MakeRun = Callable[..., Any]
Perceiver = Callable[..., tuple[int, str]]


@pytest.fixture
def perceiver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Perceiver:
    """Call the command in this process; return its exit status and what it wrote to standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["perceiver", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main.main()
        status = left.value.code
        return status if isinstance(status, int) else 0, capsys.readouterr().err

    return call


@pytest.fixture
def shards(digits_shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(digits_shards, tmp_path / "shards")


def test_every_problem_of_a_config_is_told_with_status_2(make_run: MakeRun, perceiver: Perceiver) -> None:
    run = make_run("run")
    status, told = perceiver("train", run.config, "train.stepz=3", "train.steps=many", "--run", run.folder)
    assert status == 2
    assert told.startswith("perceiver: 2 problems in ")
    assert "train.stepz = 3: unknown key; did you mean train.steps?" in told
    assert not run.folder.exists()


def test_shards_that_were_not_named_and_shards_that_are_not_there(
    make_run: MakeRun, perceiver: Perceiver, tmp_path: Path
) -> None:
    run = make_run("run")
    status, told = perceiver("train", run.config, "--run", run.folder)
    assert (status, "data.shards is not set" in told) == (2, True)
    status, told = perceiver("train", run.config, f"data.shards={tmp_path / 'nowhere'}", "--run", run.folder)
    assert (status, f"{tmp_path}/nowhere/manifest.json: no such file" in told) == (2, True)
    assert "perceiver data build" in told


@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_a_shard_that_is_not_as_the_manifest_says(
    make_run: MakeRun, perceiver: Perceiver, shards: Path, damage: str
) -> None:
    run, tar = make_run("run"), shards / "train" / "000003.tar"
    if damage == "removed":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes()[:100_000])
    status, told = perceiver("train", run.config, f"data.shards={shards}", "--run", run.folder)
    assert status == 2
    assert "train/000003.tar" in told
    assert told.count("\n") == 1, "one sentence"


def test_a_manifest_of_another_version(make_run: MakeRun, perceiver: Perceiver, shards: Path) -> None:
    run, path = make_run("run"), shards / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 9}))
    status, told = perceiver("train", run.config, f"data.shards={shards}", "--run", run.folder)
    assert (status, f"manifest.json: version 9, expected {VERSION}" in told) == (2, True)


def test_a_network_with_another_number_of_classes(make_run: MakeRun, perceiver: Perceiver, digits_shards: Path) -> None:
    run = make_run("run")
    arguments = (f"data.shards={digits_shards}", "model.outputs.label.num_classes=7")
    status, told = perceiver("train", run.config, *arguments, "--run", run.folder)
    assert (status, "has 10 classes, but model.outputs.label.num_classes = 7" in told) == (2, True)


def test_a_run_folder_that_cannot_be_written(make_run: MakeRun, perceiver: Perceiver, digits_shards: Path) -> None:
    run = make_run("run")
    status, told = perceiver("train", run.config, f"data.shards={digits_shards}", "--run", run.config / "below")
    assert (status, "cannot be written (Not a directory)" in told) == (2, True)


def test_eval_and_status_of_a_folder_without_a_run(perceiver: Perceiver, tmp_path: Path) -> None:
    for command in ("eval", "status"):
        status, told = perceiver(command, tmp_path)
        assert (status, "holds no run" in told) == (2, True)


LENGTH = ("train.steps=4", "checkpoint.save_every_steps=2")


@pytest.fixture(scope="module")
def finished_run(run_of_module: Any) -> Any:  # noqa: ANN401  # the Run of conftest.py
    """A finished run of two ranks, on shards of its own; each test leaves it as it was."""
    run = replace(run_of_module, num_processes=2)
    assert [status for status, _, _ in run.finish(*LENGTH)] == [0, 0]
    return run


@pytest.mark.slow
def test_every_rank_leaves_and_a_run_with_another_config_is_left_as_it_is(finished_run: Any) -> None:  # noqa: ANN401
    run = finished_run
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}

    (first, _, told), (second, _, silent) = run.finish(*LENGTH, "optimizer.learning_rate=0.5")
    assert (first, second) == (2, 2)
    assert "holds a run with another configuration" in told
    assert "optimizer.learning_rate: 0.001 -> 0.5" in told
    assert silent == ""
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_resume_on_other_data_is_refused_and_the_run_resumes_on_its_own(
    finished_run: Any,  # noqa: ANN401
    build_digits: Callable[[Path, int], None],
    tmp_path: Path,
) -> None:
    run, shards = finished_run, finished_run.shards
    checkpoints, weights = run.checkpoints(), run.weights()
    shards.rename(tmp_path / "aside")
    build_digits(shards, 1)
    (first, _, told), (second, _, silent) = run.finish(*LENGTH)
    assert (first, second, silent) == (2, 2, "")
    assert "belongs to a run on other data (data.shards, or those of data.datasets, hold other samples" in told
    assert told.count("perceiver:") == 1
    assert (run.checkpoints(), run.weights()) == (checkpoints, weights)
    shutil.rmtree(shards)
    (tmp_path / "aside").rename(shards)
    assert [status for status, _, _ in run.finish(*LENGTH)] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_bad_samples_that_one_rank_meets_end_all_with_one_sentence(make_run: MakeRun, shards: Path, split: str) -> None:
    [shard, *_] = sorted((shards / split).glob("*.tar"))
    content = bytearray(shard.read_bytes())
    offset, length = TarIndex.from_tar(shard).members(0)["png"]
    content[offset + length // 2] ^= 0xFF
    shard.write_bytes(content)
    evaluate_every_steps = 2 if split == "test" else 20
    run = make_run("run", 2, shards=shards)
    ranks = run.finish("data.max_bad_rate=0", f"train.evaluate_every_steps={evaluate_every_steps}")
    assert [status for status, _, _ in ranks] == [2, 2]
    told = "".join(errors for _, _, errors in ranks)
    assert told.count("are bad, above data.max_bad_rate = 0") == 1
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_full_disk_at_a_resume_is_a_sentence_and_costs_nothing(
    finished_run: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    run = finished_run
    before = run.weights()
    with small_disk(tmp_path / "disk", run.folder) as ballast:
        if ballast is None:
            pytest.skip("needs the right to mount a small disk")
        full = replace(run, folder=tmp_path / "disk" / "run")
        shutil.copytree(run.folder, full.folder)
        shutil.rmtree(full.checkpoints()[-1])  # so that steps have to be made again
        with filled(ballast):
            results = full.finish(*LENGTH)
        assert [status for status, _, _ in results] == [2, 2]
        assert results[0][2].count("no file can be written (No space left on device)") == 1
        assert "Traceback" not in "".join(errors for _, _, errors in results)
        assert [status for status, _, _ in full.finish(*LENGTH)] == [0, 0]
        assert full.weights() == before
