"""The end of a job has an order: all know, all have written, stopped ranks are woken, who is left is ended."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.health.heartbeats import LEFT, Beat
from trainer.health.job_end import JobEnd
from trainer.health.verdict import Verdict, text

WROTE, GOES = "wrote its stacks", "goes"
Ends = dict[int, list[tuple[float, str]]]
"""By rank, from which second on its beats tell how far it is in ending the job."""


class Gone(BaseException):
    """In the place of the end of this process."""


class Job:
    """Ranks 0, 1 and 2 of one host, whose processes are 10, 11 and 12, and rank 3 of another, on one clock."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, ends: Ends, *, num_hosts: int = 1) -> None:
        self.folder, self.ends, self.now = folder, ends, 0.0
        self.told: list[tuple[float, object]] = []
        self.dead_from: dict[int, float] = {}
        self.left: set[int] = set()
        self.node = SimpleNamespace(firsts=tuple(range(0, 3 * num_hosts, 3)))
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr("trainer.health.job_end.time", clock)
        monkeypatch.setattr("trainer.health.job_end.lives", lambda pid: self.now < self.dead_from.get(pid, 1e9))
        monkeypatch.setattr("trainer.health.job_end.os.kill", lambda pid, number: self.tell((pid, number)))
        monkeypatch.setattr("trainer.health.job_end.os._exit", self.exit)

    def sleep(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 3)
        # The stacks of the other host.
        for begin, _ in self.ends.get(3, []):
            if self.now >= begin:
                (self.folder / "stacks_rank_3.txt").write_text("")

    def exit(self, status: int) -> None:
        self.tell(status)
        raise Gone

    def tell(self, what: object) -> None:
        self.told.append((self.now, what))

    def beat(self, rank: int) -> Beat:
        told = [word for begin, word in self.ends.get(rank, []) if self.now >= begin]
        phase = LEFT if rank in self.left else "a step"
        return Beat(rank, "n", 10 + rank, 1, 0, phase, end=told[-1] if told else "")

    def here(self) -> list[Beat]:
        return [self.beat(rank) for rank in range(3)]

    def present(self) -> list[Beat]:
        return [beat for beat in self.here() if beat.phase != LEFT]

    @property
    def newest(self) -> dict[int, tuple[Beat, float]]:
        return {rank: (self.beat(rank), 0.0) for rank in range(3 if len(self.node.firsts) == 1 else 4)}

    def end(self, rank: int = 0, culprits: tuple[int, ...] = (2,), error: BaseException | None = None) -> None:
        verdict = Verdict(culprits, culprits, "", 0)
        (self.folder / "verdict.json").write_text(text(verdict))
        ranks: Any = self
        with pytest.raises(Gone):
            JobEnd(self.folder, rank, ranks, self.tell, period=2.0).now(error)


WAKES = [(11, signal.SIGCONT), (12, signal.SIGCONT)]
KILLS = [(11, signal.SIGKILL), (12, signal.SIGKILL)]


def at(seconds: float, *what: object) -> list[tuple[float, object]]:
    return [(seconds, each) for each in what]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    def made(ends: Ends, **options: int) -> Job:
        return Job(tmp_path, monkeypatch, ends, **options)

    return made


def test_the_keeper_wakes_those_that_are_stopped_when_all_know_and_goes_when_all_have_written(
    job: Callable[..., Job], tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    ends = job({0: [(0.0, WROTE)], 1: [(1.0, "knows"), (2.0, WROTE)], 2: [(3.0, WROTE)]})
    ends.dead_from = {11: 4.0, 12: 4.5}
    ends.end(error=KeyError("broken"))
    expected = [*at(0.0, WROTE), *at(1.0, *WAKES), *at(3.0, GOES), *at(4.5, *KILLS, 1)]
    assert ends.told == expected
    stacks = (tmp_path / "stacks_rank_0.txt").read_text()
    assert "sync" not in {kind for kind, _ in disk_calls}, "a disk that hangs must not hold up the end"
    assert stacks.index("KeyError: 'broken'") < stacks.index("most recent call first")


def test_each_wait_of_the_keeper_has_an_end(job: Callable[..., Job]) -> None:
    # Rank 1 never knows, and nobody writes or ends.
    ends = job({0: [(0.0, WROTE)]})
    ends.end()
    assert ends.told == [*at(0.0, WROTE), *at(5.0, *WAKES), *at(10.0, GOES), *at(15.0, *KILLS, 1)]


def test_of_a_convicted_rank_and_of_one_that_left_nobody_waits_for_a_word(job: Callable[..., Job]) -> None:
    ends = job({0: [(0.0, WROTE)], 2: [(2.0, GOES)]})
    ends.left = {1}
    ends.dead_from = {12: 3.0}
    ends.end()
    kept = [(12, signal.SIGCONT), (12, signal.SIGKILL)]
    assert ends.told == [*at(0.0, WROTE, kept[0]), *at(2.0, GOES), *at(3.0, kept[1], 1)]


@pytest.mark.parametrize(("writes_at", "wakes_at"), [(4.0, 4.0), (60.0, 8.0)])
def test_the_keeper_waits_for_the_stacks_of_another_host_as_long_as_that_may_take_to_know(
    job: Callable[..., Job], writes_at: float, wakes_at: float
) -> None:
    everyone = {rank: [(1.0, WROTE)] for rank in range(3)}
    ends = job({**everyone, 3: [(writes_at, WROTE)]}, num_hosts=2)
    for rank in (1, 2):
        (ends.folder / f"stacks_rank_{rank}.txt").write_text("")
        ends.dead_from[10 + rank] = 0.0
    ends.end()
    assert ends.told == [*at(0.0, WROTE), *at(wakes_at, *WAKES, GOES, *KILLS, 1)]


def test_stacks_of_a_convicted_rank_elsewhere_and_of_one_that_left_are_not_waited_for(job: Callable[..., Job]) -> None:
    ends = job({rank: [(0.0, WROTE)] for rank in range(3)}, num_hosts=2)
    ends.left = {1}
    (ends.folder / "stacks_rank_2.txt").write_text("")
    ends.dead_from[12] = 0.0
    ends.end(culprits=(3,))
    assert [seconds for seconds, _ in ends.told] == [0.0] * len(ends.told)


@pytest.mark.parametrize(
    ("culprits", "keeper", "goes_at", "ends_at"),
    [((2,), 0, 2.0, 2.0), ((0,), 1, 2.0, 2.0), ((0, 1, 2), 0, 2.0, 2.0), ((2,), 0, 99.0, 17.0)],
)
def test_others_wait_until_the_first_innocent_rank_goes(
    job: Callable[..., Job], culprits: tuple[int, ...], keeper: int, goes_at: float, ends_at: float
) -> None:
    # The others say that they go and are not waited for.
    ends = job({rank: [(0.0, GOES)] for rank in range(3)} | {keeper: [(0.0, WROTE), (goes_at, GOES)]})
    ends.end(rank=2, culprits=culprits)
    assert ends.told == [*at(0.0, WROTE), *at(ends_at, 1)]


def test_nobody_waits_for_a_keeper_that_is_dead(job: Callable[..., Job]) -> None:
    ends = job({0: [(0.0, WROTE)]})
    ends.dead_from = {10: 1.5}
    ends.end(rank=1)
    assert ends.told == [*at(0.0, WROTE), *at(1.5, 1)]
