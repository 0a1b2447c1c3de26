"""Stands in for launch/run/composition.py in a run's frozen code: the life of a rank without torch, in milliseconds.

A step is a pause; rank 0 leaves a checkpoint folder and a line of metrics after every one, behind the real fence. With
`holds_at` the first attempt stays in that step until it is told to end, is ended, or the file `go_on` is there: what is
to happen to it has all the time that it needs. `records` names variables of the rank that a line is to tell too.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from launch.lifecycle import attempts
from launch.lifecycle.fence import NUMBER, Fence
from launch.lifecycle.run_folder import RunFolder

CONSTANT = 1


def main(settings: dict[str, Any], path: Path, **_: object) -> int:
    told: list[int] = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda received, _: told.append(received))
    folder, rank = RunFolder(path), int(os.environ["RANK"])
    fence = Fence.of(folder)
    if os.environ.get("SLURMD_NODENAME") == settings.get("broken_node", "none") or settings.get("status"):
        return int(settings.get("status", 1))
    is_first = int(os.environ[NUMBER]) == 1
    for step in range(attempts.newest_step(folder) + 1, settings["steps"] + 1):
        time.sleep(0.1 if is_first else 0.02)
        while is_first and step == settings.get("holds_at") and not (told or (path / "go_on").exists()):
            fence.check()
            time.sleep(0.05)
        fence.check()
        if rank == 0:
            beside = folder.checkpoints_folder / f".step_{step:08d}.tmp"
            beside.mkdir()
            (beside / "checkpoint.json").write_text(json.dumps({"state": {"step": step}, "files": {}}))
            beside.rename(folder.checkpoints_folder / f"step_{step:08d}")
        with (folder.path / f"steps_of_rank_{rank}.jsonl").open("a") as file:
            line = {"step": step, "attempt": int(os.environ[NUMBER]), "constant": CONSTANT, "told": told}
            line |= {name: os.environ.get(name) for name in ("MASTER_PORT", *settings.get("records", ()))}
            file.write(json.dumps(line) + "\n")
        if told:
            return 85
    return 0
