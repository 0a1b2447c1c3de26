"""A rank of a supervised attempt knows who it is, records how it left, and tells an error."""

import errno
import io
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from configs.run import load
from launch.lifecycle import attempts
from launch.lifecycle.exit_status import RUN_ME_AGAIN
from launch.lifecycle.fence import NUMBER, SUPERVISOR, Fence
from launch.lifecycle.heartbeat import Heartbeat
from launch.lifecycle.run_folder import RunFolder
from launch.supervise import rank

Door = Callable[..., list[dict[str, Any]]]
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURMD_NODENAME": "n2",
}
SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """A run whose second attempt has begun; this process is a rank of it, and is itself again afterwards."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text(CONFIG.read_text())
    for _ in range(2):
        attempts.begin(folder, job_id="7", nodes=["n1", "n2"])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (SUPERVISOR, "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    os.environ.update(SLURM, **{NUMBER: "2"})
    watch, beats = Fence.watch, list[Heartbeat]()
    monkeypatch.setattr(Fence, "watch", lambda *words: beats.append(watch(*words)) or beats[-1])
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    outputs = [os.dup(descriptor) for descriptor in (1, 2)]
    yield folder
    for beat in beats:
        beat.set()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for descriptor, output in enumerate(outputs, start=1):
        os.dup2(output, descriptor)
        os.close(output)


def log(folder: RunFolder) -> str:
    return folder.log_path(2, 5).read_text()


@pytest.mark.parametrize("status", [0, 1, RUN_ME_AGAIN])
def test_a_rank_of_slurm_is_one_of_torch_s_and_records_where_it_runs_and_how_it_left(
    folder: RunFolder, door: Door, status: int
) -> None:
    def main(**_: object) -> int:
        seen.append({name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")})
        seen.append([(record.rank, record.node, record.pid, record.status) for record in attempts.ranks(folder, 2)])
        seen.append([signal.getsignal(number) for number in SIGNALS])
        os.write(1, b"printed\n")
        os.write(2, b"complained\n")
        return status

    seen: list[Any] = []
    calls = door("launch.run.composition.main", main)
    assert rank.main(folder) == status
    [given] = calls
    assert (given["config"], given["path"]) == (load(CONFIG), folder.path)
    assert seen[0] == {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert seen[1] == [(5, "n2", os.getpid(), None)]
    assert all(handler not in (signal.SIG_DFL, signal.default_int_handler) for handler in seen[2])
    assert log(folder) == "printed\ncomplained\n"
    assert [record.status for record in attempts.ranks(folder, 2)] == [status]
    assert attempts.ranks(folder, 1) == []


def test_the_program_of_a_rank_leaves_without_a_shutdown_once_all_is_printed(
    folder: RunFolder, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[object] = []

    class Noted(io.StringIO):
        def flush(self) -> None:
            order.append(self)

    def leave(status: int) -> NoReturn:
        order.append(status)
        raise SystemExit

    door("launch.run.composition.main", 3)
    monkeypatch.setattr(sys, "argv", ["rank.py", str(folder.path)])
    monkeypatch.setattr(sys, "stdout", out := Noted())
    monkeypatch.setattr(sys, "stderr", err := Noted())
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit):
        runpy.run_path(rank.__file__, run_name="__main__")
    assert order == [out, err, 3]
    assert [record.status for record in attempts.ranks(folder, 2)] == [3]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_there_is_anything_to_save_ends_a_rank_in_good_order(
    folder: RunFolder, door: Door, number: int
) -> None:
    door("launch.run.composition.main", lambda **_: signal.raise_signal(number))
    assert rank.main(folder) == RUN_ME_AGAIN
    assert [record.status for record in attempts.ranks(folder, 2)] == [RUN_ME_AGAIN]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ValueError("the batch \x1b[1m does not divide"), 2, "perceiver: the batch "),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/a"), 2, "No space left on device"),
        (OSError(errno.ECONNREFUSED, "refused"), 1, "Traceback (most recent call last)"),
        (RuntimeError("broken \x1b[1m"), 1, "Traceback (most recent call last)"),
        (SystemExit(2), 2, ""),
        (SystemExit("words"), 1, ""),
    ],
)
def test_an_error_is_told_and_is_the_rank_s_status(
    folder: RunFolder,
    door: Door,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    words: str,
) -> None:
    def fail(**_: object) -> int:
        raise error

    door("launch.run.composition.main", fail)
    assert rank.main(folder) == status
    told = capsys.readouterr().err
    assert words in told
    assert ("Traceback" in told) == (words.startswith("Traceback"))
    assert "\x1b" not in told
    assert [record.status for record in attempts.ranks(folder, 2)] == [status]


def test_a_rank_of_a_local_supervisor_ends_with_it(folder: RunFolder, door: Door) -> None:
    ends = door("launch.supervise.rank.end_with_parent", None)
    door("launch.run.composition.main")
    rank.main(folder)
    assert ends == []
    os.environ[SUPERVISOR] = "123"
    rank.main(folder)
    assert ends == [{"parent": 123}]


def test_only_the_first_rank_keeps_a_terminal(folder: RunFolder, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door("launch.run.composition.main", lambda **_: os.write(1, b"printed\n") * 0)
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 1)
    rank.main(folder)
    assert log(folder) == "printed\n"
    os.environ["SLURM_PROCID"] = "0"
    rank.main(folder)
    assert not folder.log_path(2, 0).exists()


def test_variables_of_ranks_without_slurm_stay_as_they_are() -> None:
    assert rank.torch_variables({"RANK": "3"}) == {}
    assert rank.torch_variables({**SLURM, "RANK": "3"})["RANK"] == "5"
    assert rank.torch_variables({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "3,2"})["LOCAL_WORLD_SIZE"] == "3"
    assert RunFolder(Path("run")).log_path(2, 13) == Path("run/logs/attempt_0002_rank_13.log")


def test_a_disk_that_is_full_changes_nothing_of_how_a_rank_leaves(
    folder: RunFolder, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = attempts.write_rank

    def full(folder: RunFolder, number: int, record: attempts.RankRecord) -> Path:
        if record.status is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, number, record)

    monkeypatch.setattr(attempts, "write_rank", full)
    door("launch.run.composition.main", 85)
    assert rank.main(folder) == 85


def test_a_rank_trusts_its_run_and_gives_its_heartbeat_on_and_its_log_has_a_folder(
    folder: RunFolder, door: Door
) -> None:
    trusted, calls = door("configs.plugins.trust", None), door("launch.run.composition.main", 0)
    for log_file in folder.logs_folder.iterdir():
        log_file.unlink()
    folder.logs_folder.rmdir()
    assert rank.main(folder) == 0
    assert [list(each.values()) for each in trusted] == [[folder.path]]
    assert isinstance(calls[0]["heartbeat"], Heartbeat)
    assert folder.log_path(2, 5).is_file()


def test_packages_that_are_not_supported_and_a_fault_of_a_plug_in_are_bad_input(
    folder: RunFolder, door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported() -> None:
        raise ValueError("torch 1 is not supported")

    def fail(**_: object) -> int:
        raise RuntimeError("broken")

    calls = door("launch.run.composition.main", fail)
    monkeypatch.setattr(rank, "fault_in", lambda error: "plug.py: broken" if str(error) == "broken" else "")
    assert rank.main(folder) == 2
    assert capsys.readouterr().err == "perceiver: plug.py: broken\n"
    monkeypatch.setattr(rank.versions, "check_packages", unsupported)
    assert rank.main(folder) == 2
    assert capsys.readouterr().err == "perceiver: torch 1 is not supported\n"
    assert len(calls) == 1
