"""`perceiver status`: the progress of runs, from their folders and from the scheduler's queue.

No source knows everything, and some are out of date. The first of these that knows the state decides:

    the queue            waits or runs, where, and why it waits
    lock and heartbeats  a start without Slurm trains
    checkpoints          the last step is saved: finished
    RUN/stop             its user stopped it
    the last attempt     failed, killed, or stopped after a save
"""

import json
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from configs.reader import asked
from data_shards.files import history as history_of
from data_shards.files.display import printable
from launch.lifecycle import attempts, cluster
from launch.lifecycle.exit_status import BAD_INPUT, FINISHED, RUN_ME_AGAIN
from launch.lifecycle.holder import holder
from launch.lifecycle.restart_policy import Attempt, RestartConfig, bad_nodes, failures_by_node
from launch.lifecycle.run_end import has_ended
from launch.lifecycle.run_folder import RunFolder, as_typed, runs_at
from launch.lifecycle.scheduler import UNKNOWN, Job
from launch.schedulers import submission
from trainer.checkpoint import manifest, names
from trainer.sinks import attempt_time
from trainer.sinks.page import num_skipped

RUNS = Path("runs")
# unknown too: a controller that does not answer has not ended the job.
_ANY_WIDTH = 10_000
_ALIVE = ("pending", "running", "completing", "unknown")
_ENDS = {
    RUN_ME_AGAIN: "stopped after a save; the same command resumes it",
    BAD_INPUT: "ended with status 2; correct what the log says first",
}
State = dict[str, str | int | float | None]
COLUMNS = {
    "run": "run",
    "state": "state",
    "job": "job_id",
    "attempt": "attempt",
    "nodes": "nodes",
    "step": "step",
    "of": "steps",
    "skipped": "skipped_steps",
    "loss": "loss",
    "samples/s": "samples_per_second",
    "ETA": "eta_seconds",
    "goodput": "goodput",
    "checkpoint": "newest_checkpoint",
    "damaged": "damaged",
    "why": "reason",
    "avoids": "excluded",
}


def main(paths: Sequence[Path], *, watch: bool = False, as_json: bool = False) -> int:
    """Print the state of runs, of those in ./runs where none is given; return the exit status."""
    folders = [folder for path in paths or _all_runs() for folder in runs_at(path)]
    # Of one run the newest checkpoint is read whole; for many, and every two seconds, that would be too much.
    is_one = len(folders) == 1
    if as_json:
        states = [read(folder, reads_content=is_one) for folder in folders]
        sys.stdout.write(json.dumps(states[0] if is_one else states) + "\n")
    elif watch:
        _watch(folders)
    elif is_one:
        for name, value in read(folders[0], reads_content=True).items():
            sys.stdout.write(f"{name.replace('_', ' ').removesuffix(' seconds'):<20} {_cell(name, value)}\n")
    else:
        show([read(folder) for folder in folders], Console())
    return 0


def read(folder: RunFolder, *, reads_content: bool = False) -> State:
    """Return how far the run is: of steps, loss and speed the newest line of its metrics says.

    With `reads_content` the newest checkpoint of a run that nobody trains is the one that a resume would take: its
    files are read whole.
    """
    # Not `load`: a look at somebody's run does not run its plug-ins.
    steps = int(asked("train.steps", folder.config_path))
    ends = {"steps": steps, "patience": int(asked("train.patience", folder.config_path) or 0)}
    # From the end of the file: of a run of weeks it has a million lines.
    newest = _newest_training_line(folder.metrics_path)
    step, step_seconds = int(newest.get("step", 0)), float(newest.get("step_seconds", 0.0))
    history = attempts.history(folder)
    job, submitted = submission.job(folder), submission.read(folder)
    checkpoint, entries = attempts.newest_step(folder), attempts.times(folder)
    name, reason = state_of(folder, history, job, is_finished=has_ended(folder, checkpoint, **ends))
    damaged: list[str] = []
    if reads_content and name not in _ALIVE:
        whole, damaged = manifest.newest_whole(folder.checkpoints_folder)
        checkpoint = names.step_of(whole) if whole else 0
        name, reason = state_of(folder, history, job, is_finished=has_ended(folder, checkpoint, **ends))
    # It looks finished by its metrics, and is not by what a resume would take.
    if name == "unfinished" and step >= steps > checkpoint and reason != _ENDS[BAD_INPUT]:
        reason = f"step {step} was made, but the newest complete checkpoint is of step {checkpoint}; it is made again"
    left = 0 if name == "finished" else steps - step
    if name == "finished" and checkpoint < steps:
        reason = f"its evaluations ended it early (train.patience={ends['patience']})"
    # As long as there is a job, the nodes that it was kept from; afterwards those that the next one would be.
    excluded = job.excluded if job and not job.is_over else bad_nodes(history, _restarts(folder))
    return {
        "run": str(folder.path),
        "state": name,
        "reason": reason,
        "job_id": submitted.job_id if submitted else None,
        "attempt": history[-1].number if history else None,
        "nodes": job.nodes if job and job.nodes else None,
        "excluded": _excluded(excluded, history),
        "step": step,
        "steps": steps,
        "skipped_steps": num_skipped(newest),
        "loss": newest.get("loss"),
        "samples_per_second": newest.get("samples_per_second"),
        "eta_seconds": round(left * step_seconds) if 0 < step_seconds < float("inf") else None,
        "goodput": attempt_time.goodput(entries) if entries else None,
        "newest_checkpoint": f"step_{checkpoint:08d}" if checkpoint else None,
        "damaged": "; ".join(damaged) or None,
        "seconds_since_log": round(time.time() - folder.metrics_path.stat().st_mtime) if newest else None,
    }


def state_of(
    folder: RunFolder, history: Sequence[Attempt], job: Job | None, *, is_finished: bool
) -> tuple[str, str | None]:
    """Return the state of a run in a word, and why it is in it."""
    # The queue first: a job that waits has no process that could be seen.
    if job is not None and not job.is_over and not (job.state == UNKNOWN and is_finished):
        return job.state.lower(), job.reason or _silent(folder, history[-1] if history else None)
    if words := holder(folder):
        return "running", words
    if is_finished:
        return "finished", None
    if folder.stop_path.exists():
        return "stopped", "by its user; `perceiver resume` resumes it"
    last = history[-1] if history else None
    if last and last.ended_at is None and job is None and _may_live_elsewhere(folder, last):
        return "running", None
    if last and last.failed:
        return (
            "failed",
            f"status {last.status} on {', '.join(last.failed_nodes) or 'no node in particular'}; see the log",
        )
    return "unfinished", job.state.lower() if job else _end_of(last)


def _all_runs() -> list[Path]:
    found = sorted(path for path in RUNS.glob("*") if RunFolder(path).exists or any(path.glob("*/config.yaml")))
    if not found:
        raise ValueError(f"{RUNS.resolve()}: holds no run; name the run folders, `perceiver status RUN ...`")
    return found


def show(states: Sequence[State], console: Console) -> None:
    """Print the states as a table, or a line a fact on a terminal that is too narrow for it."""
    rows = table(states)
    # A file or a pipe has no width.
    width = console.measure(rows, options=console.options.update(max_width=_ANY_WIDTH)).maximum
    if not console.is_terminal:
        console.width = width
    if width <= console.width:
        console.print(rows)
        return
    for number, state in enumerate(states):
        if number:
            console.print()
        for title, name in COLUMNS.items():
            if state[name] is not None:
                console.print(Text(f"{title:<20} {_cell(name, state[name])}"))


def table(states: Sequence[State]) -> Table:
    """Return the states as a table, a row a run; a column that has nothing to say is left out."""
    columns = {title: name for title, name in COLUMNS.items() if any(state[name] is not None for state in states)}
    result = Table(*(Column(title, overflow="fold") for title in columns), box=None)
    for state in states:
        # Not as str: rich reads [/b] in a path as markup.
        result.add_row(*(Text(_cell(name, state[name])) for name in columns.values()))
    return result


def _watch(folders: Sequence[RunFolder]) -> None:
    with Live(auto_refresh=False) as live:
        while True:
            states = [read(folder) for folder in folders]
            live.update(table(states), refresh=True)
            if all(state["state"] not in _ALIVE for state in states):
                return
            time.sleep(2)


def _cell(name: str, value: str | float | None) -> str:
    if value is None:
        return "-"
    if name == "run":
        return as_typed(Path(str(value)))
    if name == "eta_seconds":
        minutes, seconds = divmod(int(value), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    if name == "goodput":
        return f"{float(value):.0%}"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _may_live_elsewhere(folder: RunFolder, last: Attempt) -> bool:
    """Return whether ranks of an attempt give heartbeats on another host; of this one the kernel has told."""
    # Clocks are not compared: a heartbeat is late by this disk's time, see heartbeat.py.
    here = socket.gethostname()
    return any(record.node != here for record in attempts.each_rank(folder, last.number)) and not _silent(folder, last)


def _end_of(last: Attempt | None) -> str | None:
    """Return how the newest attempt of a run without a job ended, in words."""
    if last is None:
        return None
    if last.ended_at is None:
        return "was killed or cut off; the same command resumes it"
    return _ENDS.get(last.status or FINISHED)


def _silent(folder: RunFolder, last: Attempt | None) -> str | None:
    """Return which ranks of an attempt gave no heartbeat lately, in words; only their records are read."""
    late = [record for record in attempts.not_seen(folder, last.number) if record.status is None] if last else []
    return f"no heartbeat of {', '.join(f'rank {each.rank} on {each.node}' for each in late)}" if late else None


def _restarts(folder: RunFolder) -> RestartConfig:
    """Return the limits of the newest submission."""
    if folder.cluster_path.is_file():
        with suppress(ValueError):
            return cluster.load(str(folder.cluster_path)).restarts
    return RestartConfig()


def _excluded(nodes: Sequence[str], history: Sequence[Attempt]) -> str | None:
    """Return on which nodes the run is not to run and why, in words."""
    failures = failures_by_node(history)

    def why(node: str) -> str:
        numbers = ", ".join(map(str, failures.get(node, ())))
        return f"failures began there in attempts {numbers}" if numbers else "by the profile or its user"

    return "; ".join(f"{node}: {why(node)}" for node in nodes) or None


def _newest_training_line(metrics_path: Path) -> dict[str, Any]:
    records = map(history_of.record_of, history_of.newest_first(metrics_path))
    newest = next((record for record in records if record and record["kind"] == "train"), {})
    return {name: value for name, value in newest.items() if history_of.is_number(value)}
