"""`--cluster` submits the command that was typed as one job; its ranks run the same words without the option."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import make_run, run

from launch.cli import main, on_cluster

__all__ = ["make_run", "run"]

Commands = Callable[..., Callable[[str], list[str]]]
Door = Callable[..., list[dict[str, object]]]


def typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["perceiver", *words])
    with pytest.raises(SystemExit) as leaving:
        main.main()
    return leaving.value.code


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "RUN", "--cluster", "plain", "--split", "test"],
        ["predict", "RUN", "0.png", "--cluster=plain", "--out", "OUT/a.csv"],
        ["embed", "RUN", "0.png", "--out", "OUT/a.npy", "--cluster", "plain"],
    ],
)
def test_the_ranks_of_the_job_run_what_was_typed(
    words: list[str],
    run: Path,
    commands: Commands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    door: Door,
) -> None:
    commands(sbatch='cat > script\neval "$(grep "^CODE=" script)"\necho "$FOLDER" > folder\necho 7')
    words = [word.replace("RUN", str(run)).replace("OUT", str(tmp_path)) for word in words]
    monkeypatch.chdir(tmp_path)
    assert typed(words, monkeypatch) == 0
    assert "submitted job 7" in capsys.readouterr().out
    script = (tmp_path / "stand_ins" / "script").read_text()
    assert "-m launch.cli.on_cluster" in script
    folder = Path((tmp_path / "stand_ins" / "folder").read_text().strip())
    content = json.loads((folder / "command.json").read_text())
    expected = [word for word in words if word not in ("--cluster", "plain", "--cluster=plain")]
    assert content == {"words": expected, "folder": str(tmp_path)}
    monkeypatch.chdir("/")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "9")
    slurm = {"PROCID": "1", "LOCALID": "0", "STEP_NUM_TASKS": "2", "STEP_TASKS_PER_NODE": "1(x2)"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(sys, "argv", [""])
    functions = {"eval": "launch.run.trained.evaluation.main", "predict": "launch.answers.commands.predict"}
    calls = door(functions.get(words[0], "launch.answers.commands.embed"), 3)
    before = signal.getsignal(signal.SIGUSR2)
    try:
        with pytest.raises(SystemExit) as leaving:
            on_cluster.main(folder)
        # A warning of what is still to come does not end it.
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (leaving.value.code, len(calls)) == (3, 1)
    assert (Path.cwd(), os.environ["RANK"], os.environ["WORLD_SIZE"]) == (tmp_path, "1", "2")


def test_a_cluster_that_is_this_machine_or_refuses_leaves_nothing(
    run: Path, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(sbatch="echo Invalid partition >&2; exit 1")
    assert typed(["eval", str(tmp_path / "none"), "--cluster", "plain"], monkeypatch) == 2
    assert "holds no run" in capsys.readouterr().err
    for name, expected in (("workstation", "is this machine"), ("plain", "Invalid partition"), ("x", "no such")):
        assert typed(["eval", str(run), "--cluster", name], monkeypatch) == 2
        assert expected in capsys.readouterr().err
    assert not list(run.rglob("command.json"))
