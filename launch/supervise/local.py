"""`perceiver train --procs N` and local sweeps: runs on this machine under the same supervision, without Slurm."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.run import RunConfig
from data_shards.files.quoting import counted
from launch.lifecycle import attempts
from launch.lifecycle.exit_status import FINISHED, RUN_ME_AGAIN
from launch.lifecycle.restart_policy import RestartConfig
from launch.lifecycle.run_folder import RunFolder, as_typed
from launch.run.creation import open_run
from launch.run.loaders import absolute
from launch.supervise.supervisor import supervise
from trainer.engine.arithmetic import local_device_type

OUTCOMES = {FINISHED: "finished", RUN_ME_AGAIN: "preempted"}
"""Outcomes by exit status; any other status is a failure."""


def start(config: RunConfig, path: Path, num_processes: int, *, take_over: bool = False, as_json: bool = False) -> int:
    """Make or reopen the run, then train it under supervision; return the exit status."""
    status, state = _start(
        absolute(config), RunFolder(path.resolve()), num_processes, take_over=take_over, as_json=as_json
    )
    if as_json:
        sys.stdout.write(json.dumps(state) + "\n")
    return status


def sweep(
    runs: Sequence[tuple[RunConfig, RunFolder]], num_processes: int, *, dry_run: bool = False, as_json: bool = False
) -> int:
    """Train one run after the other, until one is stopped; return the worst exit status."""
    # All of them before the first one trains, perhaps for days.
    for config, _ in runs:
        config.train.micro_batches_per_rank(num_processes)
    if dry_run:
        names = [str(folder.path) if as_json else as_typed(folder.path) for _, folder in runs]
        sys.stdout.write(json.dumps({"runs": names}) + "\n" if as_json else "".join(f"{name}\n" for name in names))
        return 0
    states, statuses = [], []
    for number, (config, folder) in enumerate(runs, start=1):
        sys.stderr.write(f"perceiver: run {number} of {len(runs)}: {as_typed(folder.path)}\n")
        status, state = _start(config, folder, num_processes, as_json=as_json)
        statuses.append(status)
        states.append(state)
        if status == RUN_ME_AGAIN:
            runs_were = counted(len(runs) - number, "run was", "runs were")
            sys.stderr.write(f"perceiver: {runs_were} not started; the same command starts the rest\n")
            break
    if as_json:
        sys.stdout.write(json.dumps(states) + "\n")
    return max(statuses)


def _start(
    config: RunConfig, folder: RunFolder, num_processes: int, *, take_over: bool = False, as_json: bool
) -> tuple[int, dict[str, str | int]]:
    """Train a run; return the exit status, and in the words of --json how it ended."""
    # Before the run's folder is made.
    config.train.micro_batches_per_rank(num_processes)
    open_run(config, folder, num_processes, local_device_type())
    # With --json standard output is for one object alone.
    output = sys.stderr.fileno() if as_json else None
    status = supervise(folder, num_processes, RestartConfig(), take_over=take_over, output=output)
    outcome, step = OUTCOMES.get(status, "failed"), attempts.newest_step(folder)
    return status, {"outcome": outcome, "step": step, "run": str(folder.path)}
