"""Every attempt has an entry, also one that was killed; lost work and goodput follow from them."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks

from trainer.distributed.world import World
from trainer.sinks.attempt_time import PARTS, AttemptTime, TimeEntry, goodput, lost_steps, read

WORLD = World(0, 1, 0, torch.device("cpu"))
ATTEMPT = TimeEntry(number=1, hosts=("a",), world_size=2, started_at=0.0)


def attempt(folder: Path, number: int) -> Path:
    """Make the folder of an attempt."""
    path = folder / f"{number:04d}"
    path.mkdir()
    return path


def test_an_attempt_that_says_no_more_was_killed_and_the_next_has_the_next_number(tmp_path: Path) -> None:
    first = AttemptTime(attempt(tmp_path, 1), WORLD)
    first.started(0)
    first.add("compute", 2.0)
    first.reached(7)
    second = AttemptTime(attempt(tmp_path, 2), WORLD)
    second.started(5)
    with second.spent("save"):
        pass
    second.reached(9, rollbacks=1)
    second.end("finished")
    entries = read(sorted(tmp_path.iterdir()))
    assert [entry.ended for entry in entries] == ["killed", "finished"]
    assert [entry.number for entry in entries] == [1, 2]
    assert (entries[1].first_step, entries[1].last_step, entries[1].rollbacks) == (5, 9, 1)
    assert entries[1].seconds["save"] > 0


def test_only_the_first_rank_writes_and_nothing_is_written_without_a_folder(tmp_path: Path) -> None:
    AttemptTime(attempt(tmp_path, 1), replace(WORLD, rank=1)).end("finished")
    AttemptTime(None, WORLD).end("finished")
    assert read(list(tmp_path.iterdir())) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


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


def test_an_entry_says_where_the_attempt_ran_and_where_its_time_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(
        now=0.0, monotonic=lambda: clock.now, perf_counter=lambda: clock.now, time=lambda: 1000.0 + clock.now
    )
    monkeypatch.setattr("trainer.sinks.attempt_time.time", clock)

    folder = attempt(tmp_path, 1)

    def rank(world: ThreadWorld) -> str:
        monkeypatch.setattr("trainer.sinks.attempt_time.socket.gethostname", lambda: "here")
        time = AttemptTime(folder, world)
        if world.is_first:
            time.started(3)
            with time.spent("save"):
                clock.now += 2.0
            time.add("compute", 1.5)
            time.add("compute", 0.25)
            time.reached(4)
            assert read([folder])[0].last_step == 3, "the file follows every few seconds"
            clock.now = 5.0
            time.reached(5, rollbacks=1)
        return str(time.number)

    assert on_ranks(2, rank)[0] == "1"
    [entry] = read([folder])
    assert (entry.hosts, entry.world_size) == (("here",), 2)
    assert (entry.first_step, entry.last_step, entry.rollbacks, entry.ended) == (3, 5, 1, "killed")
    assert (entry.started_at, entry.seen_at) == (1000.0, 1005.0)
    assert entry.seconds == {**dict.fromkeys(PARTS, 0.0), "save": 2.0, "compute": 1.75}


def test_time_is_counted_as_a_parts_though_it_ends_by_an_error(tmp_path: Path) -> None:
    folder = attempt(tmp_path, 1)
    time = AttemptTime(folder, WORLD)
    with pytest.raises(RuntimeError), time.spent("evaluation"):
        raise RuntimeError
    time.end("RuntimeError [/b]\x1b[2J")
    [entry] = read([folder])
    assert entry.seconds["evaluation"] > 0
    assert "\x1b" not in entry.ended


def test_only_how_an_attempt_ended_has_to_survive_a_power_cut(
    tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    time = AttemptTime(attempt(tmp_path, 1), WORLD)
    time.started(0)
    assert {kind for kind, _ in disk_calls} == {"name"}
    disk_calls.clear()
    time.end("finished")
    assert [kind for kind, _ in disk_calls] == ["sync", "name", "sync"]


def test_an_entry_has_the_number_of_its_attempt_and_one_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    first, second, third = (attempt(tmp_path, number) for number in (1, 2, 12))
    for folder in (first, third):
        AttemptTime(folder, WORLD).end("finished")
    second.joinpath("time.json").write_text("")
    assert [entry.number for entry in read([first, second, third])] == [1, 12]
    second.joinpath("time.json").write_bytes((first / "time.json").read_bytes())
    assert [entry.number for entry in read([first, second, third])] == [1, 2, 12], "a copy has the number of its folder"


def test_attempts_that_made_no_step_or_took_no_time_have_no_goodput() -> None:
    still = replace(ATTEMPT, first_step=5, last_step=5, seen_at=50.0, seconds={"compute": 40.0})
    assert goodput([]) == goodput([ATTEMPT]) == goodput([still]) == 0.0
    assert lost_steps([]) == []
    done = replace(ATTEMPT, last_step=10, seen_at=50.0, seconds={"compute": 50.0})
    assert lost_steps([done, replace(done, first_step=12)]) == [0, 0]
    assert goodput([done, replace(still, first_step=0, last_step=0)]) == 0.0
    assert goodput([done]) == 1.0
