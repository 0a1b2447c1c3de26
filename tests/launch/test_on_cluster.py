"""`--cluster` submits the command that was typed as one job; its ranks run the same words without the option."""

import io
import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import make_run, run

from launch.cli import main, on_cluster
from launch.lifecycle import cluster
from launch.run.frozen_code import installed_folder

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


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["eval", "--cluster", "plain", "RUN"], ["eval", "RUN"]),
        (["eval", "--cluster=plain", "RUN", "--json"], ["eval", "RUN", "--json"]),
        # The second is the value of the first.
        (["eval", "--cluster", "--cluster", "RUN"], ["eval", "RUN"]),
        (["eval", "--cluster", "a", "--cluster", "b", "RUN"], ["eval", "RUN"]),
        (["--clusters"], ["--clusters"]),
    ],
)
def test_words_go_without_the_cluster_and_its_name(words: list[str], kept: list[str]) -> None:
    assert on_cluster.without(words) == kept


def test_each_submission_has_a_folder_of_its_own_with_what_was_typed(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = door("launch.slurm.door.submit_module", "7")
    for _ in range(2):
        assert on_cluster.submit("plain", ["eval", "a run", "--cluster", "plain"], Path("a run/logs")) == 0
    folders = [Path(str(given.pop("folder"))) for given in calls]
    assert sorted(map(str, folders)) == sorted(map(str, (tmp_path / "a run" / "logs").iterdir()))
    assert len(folders) == 2
    for folder, given in zip(folders, calls, strict=True):
        assert folder.name.startswith("eval-")
        assert given == {
            "module": "launch.cli.on_cluster",
            "cluster": cluster.load("plain"),
            "code": installed_folder(),
            "job_name": folder.name,
        }
        # A line a word, for whoever looks what a job ran.
        assert (folder / "command.json").read_text() == (
            f'{{\n "words": [\n  "eval",\n  "a run"\n ],\n "folder": "{tmp_path}"\n}}\n'
        )
    assert capsys.readouterr().out == "".join(
        f"submitted job 7\noutput: 'a run/logs/{folder.name}'/7_0_log.out\n" for folder in folders
    )


@pytest.mark.parametrize(("code", "status"), [(3, 3), (0, 0), (None, 0), ("words", 1), ("", 0), ("nothing", 0)])
def test_a_rank_ends_with_the_status_of_the_command_and_leaves_no_word_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: object, status: int
) -> None:
    ends: list[tuple[int, list[bytes]]] = []
    ran: list[tuple[list[str], Path]] = []
    buffers = [io.BytesIO(), io.BytesIO()]

    def command() -> None:
        # Words that are still in the buffers of Python.
        for stream in (sys.stdout, sys.stderr):
            stream.write("told")
        ran.append((list(sys.argv), Path.cwd()))
        if code != "nothing":
            sys.exit(code)  # type: ignore[arg-type]

    monkeypatch.setattr("launch.cli.main.main", command)
    monkeypatch.setattr(os, "_exit", lambda status: ends.append((status, [each.getvalue() for each in buffers])))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "argv", ["on_cluster", str(tmp_path)])
    for name, buffer in zip(("stdout", "stderr"), buffers, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer))
    monkeypatch.chdir("/")
    (tmp_path / "command.json").write_text(json.dumps({"words": ["eval", "a"], "folder": str(tmp_path)}))
    before = signal.getsignal(signal.SIGUSR2)
    try:
        runpy.run_path(on_cluster.__file__, run_name="__main__")
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert ends == [(status, [b"told", b"told"])]
    assert ran == [(["perceiver", "eval", "a"], tmp_path)]
