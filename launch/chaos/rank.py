"""One rank of a fault campaign: `python -m launch.chaos.rank PLANS train CONFIG ...` is `perceiver train CONFIG ...`
that meets the faults of its plans at exact places. Nothing of this is in the product's own code.
"""

import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch.chaos.disk import filled
from launch.chaos.own_code import with_own_code

Place = Literal["make", "start", "step", "write", "commit", "evaluation", "load", "supervisor"]
Action = Literal["kill", "stop", "raise", "terminate", "full_disk", "second_start"]
_BLOCK_BYTES = 4096
# A second start is a process of its own, not a rank of the world that it disturbs.
_OF_A_RANK = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@dataclass(frozen=True)
class Plan:
    """A fault of a rank, and its place."""

    place: Place
    """The call: the making of the run's folder, the loader's start, a step, a checkpoint file, its commit, etc."""
    count: int
    """The number of the call, from 1."""
    action: Action
    """The fault."""
    delay_ms: int
    """The time after the beginning of the call; 0 is before it begins."""
    met_path: str
    """A file that is created when the fault happens."""
    ballast_path: str = ""
    """The file that fills the disk; without it the kernel limits the size of this process's files instead."""


def places() -> dict[Place, tuple[Any, str]]:
    """Return the call that each place is, by its owner and name."""
    import launch.run.composition
    import launch.run.creation
    import trainer.checkpoint.store
    import trainer.engine.engine

    return {
        "make": (launch.run.creation, "copy_code"),
        "start": (launch.run.composition, "train_loader"),
        "step": (trainer.engine.engine.Engine, "start"),
        "write": (trainer.checkpoint.store, "write"),
        "commit": (trainer.checkpoint.store.Store, "_commit"),
        "evaluation": (launch.run.composition, "evaluate"),
        "load": (trainer.checkpoint.store.Store, "load"),
    }


def main(plans: list[Plan], arguments: list[str]) -> None:
    """Put the faults in their places and run the command."""
    # Looked up when the fault is placed, since importing the owners takes seconds that a start without faults need not
    # pay.
    calls = places()
    for plan in plans:
        owner, name = calls[plan.place]
        # From outside: the product has no switch that could inject a fault into somebody's run.
        setattr(owner, name, _meeting(plan, getattr(owner, name), arguments))
    sys.argv = ["perceiver", *arguments]
    runpy.run_module("launch", run_name="__main__")


def _meeting(plan: Plan, call: Callable[..., Any], arguments: list[str]) -> Callable[..., Any]:
    """Return the call such that the planned one meets the fault."""
    calls = 0

    def planned(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # whatever is called
        # Counted: a plan names the third save, not any.
        nonlocal calls
        calls += 1
        if calls != plan.count:
            return call(*args, **kwargs)
        if plan.action == "full_disk":
            return _on_a_full_disk(plan, lambda: call(*args, **kwargs))
        if plan.action == "second_start":
            Path(plan.met_path).write_text(str(_second_start(arguments)))
            return call(*args, **kwargs)
        # A signal comes from a thread, in the middle of the call. An exception has to come out of the call itself.
        if plan.delay_ms and plan.action != "raise":
            threading.Timer(plan.delay_ms / 1000, _happen, (plan,)).start()
        else:
            _happen(plan)
        return call(*args, **kwargs)

    return planned


def _happen(plan: Plan) -> None:
    Path(plan.met_path).touch()
    match plan.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise RuntimeError("a fault of the campaign")
        case "terminate" | "full_disk" | "second_start":
            pass  # the driver signals all ranks once it sees the file


def _second_start(arguments: list[str]) -> int:
    """Start the same run again while this process trains it; return how the other left."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_RANK}
    command = [sys.executable, "-m", "launch", *arguments]
    return subprocess.run(command, env=with_own_code(environment), stdout=subprocess.DEVNULL, check=False).returncode


def _on_a_full_disk(plan: Plan, call: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever is called
    """Make the call while the disk is full, or while the kernel makes no file of this process longer than a block."""
    Path(plan.met_path).touch()
    if plan.ballast_path:
        with filled(Path(plan.ballast_path)):
            return call()
    # Where nothing can be mounted this is the nearest thing to a full disk: a write fails in the middle of a file.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_BLOCK_BYTES, limits[1]))
    try:
        return call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


if __name__ == "__main__":
    main([Plan(**plan) for plan in json.loads(sys.argv[1])], sys.argv[2:])
