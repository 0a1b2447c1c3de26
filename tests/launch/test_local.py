"""Runs on this machine without Slurm are made, supervised and told of; a sweep ends with the run that is stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.run import RunConfig, load
from launch.lifecycle import attempts
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder
from launch.run.creation import open_run
from launch.supervise import local

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
# In the place of a rank: prints, and leaves as the run's folder is called.
RANK = "import pathlib, sys; print('printed by a rank'); sys.exit(int(pathlib.Path(sys.argv[1]).name.split('_')[1]))"
Made = Callable[[int], tuple[RunConfig, RunFolder]]


@pytest.fixture
def made(shards: Path, tmp_path: Path) -> Made:
    """Make a run whose ranks leave with this status."""
    config = load(CONFIG, [f"data.shards={shards}"])

    def make(status: int) -> tuple[RunConfig, RunFolder]:
        folder = RunFolder(tmp_path / f"run_{status}")
        open_run(config, folder)
        (folder.code_folder / "launch" / "supervise" / "rank.py").write_text(RANK)
        return config, folder

    return make


@pytest.mark.parametrize(("status", "outcome"), [(0, "finished"), (2, "failed")])
def test_one_object_tells_how_a_run_ended_and_nothing_else_is_on_standard_output(
    made: Made, capfd: pytest.CaptureFixture[str], status: int, outcome: str
) -> None:
    config, folder = made(status)
    assert local.start(config, folder.path, 1, as_json=True) == status
    told = capfd.readouterr()
    assert json.loads(told.out) == {"outcome": outcome, "step": 0, "run": str(folder.path)}
    assert "printed by a rank" in told.err
    assert local.start(config, folder.path, 1) == status
    assert capfd.readouterr().out == "printed by a rank\n"
    assert attempts.current(folder) == 2


def test_a_sweep_trains_one_run_after_the_other_and_leaves_with_the_worst_status(
    made: Made, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = [made(2), made(0)]
    assert local.sweep(runs, 1, as_json=True) == 2
    told = capfd.readouterr()
    assert [state["outcome"] for state in json.loads(told.out)] == ["failed", "finished"]
    assert "run 1 of 2: " in told.err
    assert "run 2 of 2: " in told.err
    assert local.sweep(runs, 1) == 2
    assert capfd.readouterr().out == "printed by a rank\n" * 2


def test_a_sweep_of_which_a_run_is_stopped_begins_no_other(
    made: Made, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [made(0), made(85), made(2)]
    # Its ranks leave in good order for ever.
    monkeypatch.setattr(local, "RestartConfig", lambda: RestartConfig(max_requeues=0))
    assert local.sweep(runs, 1, as_json=True) == 85
    told = capfd.readouterr()
    assert [state["outcome"] for state in json.loads(told.out)] == ["finished", "preempted"]
    assert "1 run was not started; the same command starts the rest" in told.err
    assert attempts.current(runs[2][1]) == 0


def test_a_number_of_ranks_that_does_not_divide_the_batch_begins_no_run_of_a_sweep(made: Made, tmp_path: Path) -> None:
    config, folder = made(0)
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        local.sweep([(config, folder)], 3)
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        local.start(config, tmp_path / "new", 3)
    assert attempts.current(folder) == 0
    assert not (tmp_path / "new").exists()


def test_a_dry_run_of_a_sweep_is_one_object_with_whole_paths(
    made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [made(0)]
    assert local.sweep(runs, 1, dry_run=True, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": [str(tmp_path / "run_0")]}
    assert local.sweep(runs, 1, dry_run=True) == 0
    assert capsys.readouterr().out == "run_0\n"
    assert attempts.current(runs[0][1]) == 0


def test_a_run_is_taken_over_only_where_that_is_asked_for(
    made: Made, door: Callable[..., list[dict[str, Any]]]
) -> None:
    config, folder = made(0)
    asked = door("launch.supervise.local.supervise", 0)
    local.start(config, folder.path, 2)
    local.start(config, folder.path, 2, take_over=True)
    local.sweep([(config, folder)], 2)
    assert [(each["num_processes"], each["take_over"], each["output"]) for each in asked] == [
        (2, False, None),
        (2, True, None),
        (2, False, None),
    ]
    assert all(each["config"] == RestartConfig() for each in asked)
