"""Scripts of tests/trainer/scenarios, run by real processes that talk over gloo."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audit import listening
from ports import free_port
from warm_start import WarmProcess

from trainer.distributed.world import World

SCENARIOS = Path(__file__).parent / "scenarios"
REPOSITORY = Path(__file__).parents[2]
RunRanks = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The world of this process alone; one a session, since DeepSpeed keeps the first that it saw."""
    alone = World.alone()
    yield alone
    alone.close()


@pytest.fixture
def opens() -> Iterator[Callable[[], list[str]]]:
    """Return the names of the files that the calling thread has opened in this test."""
    by_thread: dict[int, list[str]] = {}

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | Path):
            by_thread.setdefault(threading.get_ident(), []).append(Path(str(arguments[0])).name)

    with listening(note):
        yield lambda: list(by_thread.get(threading.get_ident(), []))


@pytest.fixture(scope="session")
def run_ranks() -> RunRanks:
    """Run `scenarios/NAME.py ARGUMENTS` on so many ranks; return what each printed as JSON on its last line."""

    def run(name: str, world_size: int, *arguments: object, fails: bool = False) -> list[Any]:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world_size)}
        ranks = [
            WarmProcess(
                [sys.executable, str(SCENARIOS / "as_rank.py"), str(SCENARIOS / f"{name}.py"), *map(str, arguments)],
                env={
                    **os.environ,
                    "PYTHONPATH": str(REPOSITORY),
                    "OMP_NUM_THREADS": "1",
                    **shared,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for rank in range(world_size)
        ]
        try:
            outputs = [rank.communicate(timeout=240) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        if fails:
            return [rank.returncode for rank in ranks]
        for rank, (_, errors) in zip(ranks, outputs, strict=True):
            assert rank.returncode == 0, errors
        return [json.loads(printed.splitlines()[-1]) for printed, _ in outputs]

    return run
