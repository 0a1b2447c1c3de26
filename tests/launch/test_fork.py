"""A fork goes on from the other's newest checkpoint under its own configuration; diff says in what runs differ."""

from pathlib import Path

import pytest

from configs.run import load
from launch import fork
from launch.folder import RunFolder
from launch.open_run import open_run

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture
def run(tmp_path: Path, shards: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    open_run(load(CONFIG, [f"data.shards={shards}"]), folder)
    return folder


def test_a_fork_has_the_new_values_and_differs_in_nothing_else(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = RunFolder(tmp_path / "new")
    assert fork.fork(run.path, new.path, ["optimizer.learning_rate=0.5"]) == 0
    assert load(new.config_path).optimizer.learning_rate == 0.5
    assert "optimizer.learning_rate: 0.002 -> 0.5" in capsys.readouterr().out
    assert fork.diff(run.path, new.path) == 1
    assert capsys.readouterr().out == "optimizer.learning_rate: 0.002 -> 0.5\n"
    with (new.code_folder / "launch" / "cli.py").open("a") as file:
        file.write("# changed\n")
    assert fork.diff(run.path, new.path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "code/launch/cli.py"
    assert fork.diff(run.path, run.path) == 0


def test_a_folder_that_holds_a_run_is_not_forked_into(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="holds a run already"):
        fork.fork(run.path, run.path, [])
