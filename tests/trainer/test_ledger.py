"""Every attempt has an entry, also one that was killed; lost work and goodput follow from them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.ledger import Attempt, Ledger, goodput, lost_steps, read
from trainer.world import World

WORLD = World(0, 1, 0, torch.device("cpu"))
ATTEMPT = Attempt(number=1, hosts=("a",), world_size=2, started_at=0.0)


def test_an_attempt_that_says_no_more_was_killed_and_the_next_has_the_next_number(tmp_path: Path) -> None:
    first = Ledger(tmp_path, WORLD)
    first.started(0)
    first.add("compute", 2.0)
    first.reached(7)
    second = Ledger(tmp_path, WORLD)
    second.started(5)
    with second.spent("save"):
        pass
    second.reached(9, rollbacks=1)
    second.end("finished")
    entries = read(tmp_path)
    assert [entry.ended for entry in entries] == ["killed", "finished"]
    assert [entry.number for entry in entries] == [1, 2]
    assert (entries[1].first_step, entries[1].last_step, entries[1].rollbacks) == (5, 9, 1)
    assert entries[1].seconds["save"] > 0


def test_only_the_first_rank_writes_and_nothing_is_written_without_a_folder(tmp_path: Path) -> None:
    Ledger(tmp_path, replace(WORLD, rank=1)).end("finished")
    Ledger(None, WORLD).end("finished")
    assert read(tmp_path) == []


def test_lost_work_is_what_the_next_attempt_does_again_and_goodput_leaves_it_out() -> None:
    seconds = {"compute": 80.0, "start_up": 20.0}
    attempts = [
        replace(ATTEMPT, first_step=0, last_step=10, seen_at=100.0, seconds=seconds),
        replace(ATTEMPT, first_step=5, last_step=15, seen_at=100.0, seconds=seconds),
    ]
    assert lost_steps(attempts) == [5, 0]
    assert goodput(attempts) == pytest.approx((40 + 80) / 200)


def test_a_clock_that_is_set_back_makes_no_goodput_above_one() -> None:
    times = {"start_up": 10.0, "compute": 30.0}
    attempt = replace(ATTEMPT, started_at=1000.0, seen_at=400.0, seconds=times, last_step=5)
    assert goodput([attempt]) == pytest.approx(0.75)
    assert goodput([replace(attempt, seen_at=1060.0)]) == pytest.approx(0.5)
