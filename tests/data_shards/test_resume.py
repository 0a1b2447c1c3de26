"""A job that is killed goes on with any number of ranks and sees what it would have seen."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from data_shards.format.manifest import Manifest
from data_shards.order.state import DataState

TextShards = Callable[..., Manifest]
NUM_STEPS, SAVED_AT, KILLED_AFTER = 20, 8, 10
"""Steps of 12 samples; an epoch has 5."""


def start(shards: Path, state: Path, num_steps: int, end: str, *world_sizes: int) -> subprocess.Popen[str]:
    words = [sys.executable, Path(__file__).with_name("job.py"), shards, state, num_steps, end, *world_sizes]
    return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, start_new_session=True)


def global_batches(lines: Iterable[str], world_size: int) -> dict[int, list[str]]:
    """Return the keys of each global batch of the job of that size, in their order."""
    parts = {(step, rank): keys for size, step, rank, keys in map(json.loads, lines) if size == world_size}
    steps = sorted({step for step, _ in parts})
    return {step: [key for rank in range(world_size) for key in parts[step, rank]] for step in steps}


def finished(job: subprocess.Popen[str]) -> list[str]:
    lines = job.communicate(timeout=100)[0].splitlines()
    assert job.returncode == 0
    return lines


@pytest.mark.slow
def test_a_job_killed_on_2_ranks_goes_on_with_1_3_and_4_and_the_same_samples(
    tmp_path: Path, text_shards: TextShards
) -> None:
    shards, state = tmp_path / "shards", tmp_path / "state"
    text_shards(shards, [20, 17, 23])
    killed = start(shards, state, KILLED_AFTER, "hangs", 2)
    assert killed.stdout is not None
    lines = [killed.stdout.readline() for _ in range(2 * KILLED_AFTER)]
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.communicate()[0] == ""

    uninterrupted = global_batches(finished(start(shards, tmp_path / "unused", NUM_STEPS, "ends", 1)), 1)
    assert global_batches(lines, 2) == {step: uninterrupted[step] for step in range(KILLED_AFTER)}

    # Steps 8 and 9 had been seen and were not saved: they come again.
    assert DataState.from_json(state.read_text()).step == SAVED_AT
    lines = finished(start(shards, state, NUM_STEPS, "ends", 1, 3, 4))
    for world_size in (1, 3, 4):
        assert global_batches(lines, world_size) == {step: uninterrupted[step] for step in range(SAVED_AT, NUM_STEPS)}
