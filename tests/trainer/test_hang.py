"""A rank that does not go on is named, everyone's stacks are kept, and no process is left."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# The scenario allows 4 s; a loaded machine adds to starting, noticing and ending.
WITHIN_SECONDS = 45


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "why"), [("stopped", "silent for"), ("stuck", "stuck in waiting for its batch")])
def test_a_rank_that_holds_up_the_others_is_named_and_all_end_with_their_stacks_written(
    run_ranks: Callable[..., list], tmp_path: Path, fault: str, why: str
) -> None:
    started = time.monotonic()
    statuses = run_ranks("hang", 3, tmp_path / "watch", fault, fails=True)
    assert time.monotonic() - started < WITHIN_SECONDS
    assert statuses == [1, 1, 1]
    verdict = json.loads((tmp_path / "watch" / "verdict.json").read_text())
    assert verdict["culprits"] == [1]
    assert verdict["named"].startswith("rank 1 (host ")
    assert why in verdict["named"]
    stacks = [(tmp_path / "watch" / f"stacks_rank_{rank}.txt").read_text() for rank in range(3)]
    # A stopped process goes on for the moment that it needs to write.
    assert ("meet_the_fault" if fault == "stuck" else "in <module>") in stacks[1]
    assert all("in barrier" in stacks[rank] for rank in (0, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "status"), [("killed", -9), ("raises", 1)])
def test_a_rank_that_dies_ends_the_others_with_a_failure(
    run_ranks: Callable[..., list], tmp_path: Path, fault: str, status: int
) -> None:
    statuses = run_ranks("hang", 3, tmp_path / "watch", fault, fails=True)
    assert statuses[1] == status
    assert all(other != 0 for other in statuses)
