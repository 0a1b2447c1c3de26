"""One rank of a supervised attempt: `python -m launch.supervise.rank RUN`, started by srun or by the local supervisor.

It translates Slurm's variables into torch's, leaves at once if it is signalled before training can be asked to stop,
stops itself when a later attempt has begun, and records how it left.
"""

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from data_shards.files.atomic import of_disk
from data_shards.files.display import printable_lines
from data_shards.files.plugin_files import fault_in
from data_shards.files.quoting import MAX_MESSAGE, cut
from launch import versions
from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.exit_status import BAD_INPUT, FAILED, RUN_ME_AGAIN
from launch.lifecycle.fence import NUMBER, SUPERVISOR, Fence
from launch.lifecycle.heartbeat import Heartbeat
from launch.lifecycle.run_folder import RunFolder
from trainer.health.process import end_with_parent


def main(folder: RunFolder) -> int:
    """Run this rank of the attempt that the environment names and return its exit status."""
    if SUPERVISOR in os.environ:
        # Killed without a word, it would leave ranks behind that nobody watches.
        end_with_parent(int(os.environ[SUPERVISOR]))
    # Until the training has handlers of its own there is nothing to save, so a signal ends the rank in good order.
    # That of the time limit or of preemption is USR2, Slurm's last word is TERM.
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    os.environ.update(torch_variables(os.environ))
    rank, attempt = int(os.environ["RANK"]), int(os.environ[NUMBER])
    _redirect(folder.log_path(attempt, rank))
    record = RankRecord.here(rank, os.environ.get("SLURMD_NODENAME", ""))
    status = _train(folder, Fence.of(folder).watch(attempts.write_rank(folder, attempt, record)))
    with suppress(OSError):  # on a full disk; a rank without a record counts as killed
        attempts.write_rank(folder, attempt, replace(record, status=status))
    return status


def torch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return torch's variables of this rank; those of Slurm win over any that the user's shell exported."""
    if "SLURM_PROCID" not in environment:
        return {}
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        # Such as 2(x3), two tasks on each of three nodes: the profile asks for the same number on all.
        "LOCAL_WORLD_SIZE": environment["SLURM_STEP_TASKS_PER_NODE"].partition("(")[0].partition(",")[0],
    }


def _train(folder: RunFolder, heartbeat: Heartbeat) -> int:
    try:
        # Before torch is imported: with a version that is not supported it may fail in its own words.
        versions.check_packages()
        from configs.plugins import trust
        from configs.run import load
        from launch.run import composition

        trust(folder.path)
        return composition.main(load(folder.config_path), folder.path, heartbeat=heartbeat)
    except ValueError as error:
        sys.stderr.write(f"perceiver: {printable_lines(cut(fault_in(error) or str(error), MAX_MESSAGE))}\n")
        return BAD_INPUT
    except OSError as error:
        sentence = of_disk(error)
        sys.stderr.write(printable_lines(f"perceiver: {sentence}\n" if sentence else traceback.format_exc()))
        return BAD_INPUT if sentence else FAILED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else FAILED
    except Exception as error:  # noqa: BLE001  # the record has to say that this rank failed, whatever it was
        fault = fault_in(error)
        sys.stderr.write(printable_lines(f"perceiver: {fault}\n" if fault else traceback.format_exc()))
        return BAD_INPUT if fault else FAILED


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(RUN_ME_AGAIN)


def _redirect(path: Path) -> None:
    """Send what this process and its children print to the log; rank 0 keeps a terminal that it has."""
    if os.isatty(1) and os.environ["RANK"] == "0":
        return
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


if __name__ == "__main__":
    status = main(RunFolder(Path(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's shutdown: after an error gloo's threads may still hold tensors, abort there, and the
    # status that decides on a restart would be lost.
    os._exit(status)
