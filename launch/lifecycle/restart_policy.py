"""The restart policy: a pure function of the record of a run's attempts.

Nothing but the exit status of attempts and their checkpoints decides:

    status of the attempt    what follows
    0   finished             nothing
    2   bad input            nothing: another start would meet it again
    85  saved, then left     another attempt, up to max_requeues; none if its user stopped it
    any other                another attempt, until max_failures in a row have written no checkpoint between them
    none: taken by Slurm     Slurm starts the next one by itself; it is no failure of the run's
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from launch.lifecycle.exit_status import BAD_INPUT, FINISHED, RUN_ME_AGAIN


@dataclass(frozen=True)
class RestartConfig:
    """The limits of automatic restarts."""

    max_requeues: int = 100
    """Restarts after an orderly stop: a time limit or a preemption that the processes saw coming."""
    max_failures: int = 3
    """Failures in a row, without a new checkpoint between them, after which the run is given up."""
    exclude_after: int = 2
    """Failures that began on a node, without a new checkpoint between, before later attempts avoid it; 0: never.

    A job is always left as many nodes as it needs.
    """

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        for key in ("max_requeues", "max_failures", "exclude_after"):
            if getattr(self, key) < 0:
                yield key, f"expected at least 0, got {getattr(self, key)}"


@dataclass(frozen=True)
class Attempt:
    """One start of a run and, once it is known, how it ended."""

    number: int
    """The number of the attempt, from 1."""
    job_id: str
    """The id of the Slurm job; empty for a local run."""
    nodes: tuple[str, ...]
    """The nodes on which it ran, the first node first."""
    started_at: float
    """When it started, in Unix seconds."""
    first_step: int
    """The step of the checkpoint that it resumed from."""
    ended_at: float | None = None
    """Unix seconds; None while it runs and when Slurm took it away (preempted, node lost, cancelled)."""
    status: int | None = None
    """Exit status of its processes; None with ended_at."""
    last_step: int = 0
    """Step of its newest checkpoint."""
    failed_nodes: tuple[str, ...] = ()
    """The nodes on which its failure began."""

    @property
    def failed(self) -> bool:
        """Whether its processes ended by themselves with an error."""
        return self.status not in (None, FINISHED, BAD_INPUT, RUN_ME_AGAIN)


@dataclass(frozen=True)
class Verdict:
    """A decision: restart or not, and the reason for the log."""

    again: bool
    reason: str


def verdict(history: Sequence[Attempt], config: RestartConfig, *, stop_requested: bool) -> Verdict:
    """Return what follows the last attempt of `history`, which has ended."""
    last = history[-1]
    if last.status == FINISHED:
        return Verdict(False, "finished")
    if last.status == BAD_INPUT:
        return Verdict(False, "the input must be corrected first; see the log")
    # After the ends that nothing follows in any case: they say more than that a user has stopped the run.
    if stop_requested:
        return Verdict(False, "stopped by its user")
    if last.status == RUN_ME_AGAIN:
        asked = sum(attempt.status == RUN_ME_AGAIN for attempt in history)
        # All of them count, and not those in a row: without a limit a run that saves and leaves at once would start for
        # ever.
        again = asked <= config.max_requeues
        return Verdict(again, f"saved and exited in good order; restart {asked} of {config.max_requeues}")
    in_a_row = _failures_in_a_row(history)
    again = in_a_row < config.max_failures
    words = (
        f"failed with status {last.status}, failure {in_a_row} of {config.max_failures} without a checkpoint between"
    )
    return Verdict(again, words)


def failures_by_node(history: Sequence[Attempt]) -> dict[str, list[int]]:
    """Return the numbers of the attempts whose failure began on a node, since the run last wrote a checkpoint."""
    found: dict[str, list[int]] = {}
    for attempt in _since_progress(history):
        for node in attempt.failed_nodes if attempt.failed else ():
            found.setdefault(node, []).append(attempt.number)
    return found


def bad_nodes(history: Sequence[Attempt], config: RestartConfig) -> tuple[str, ...]:
    """Return the nodes on which failures began too often since the run last wrote a checkpoint, worst first."""
    failures = failures_by_node(history)
    bad = [node for node, numbers in failures.items() if 0 < config.exclude_after <= len(numbers)]
    # By name where nodes are equally bad, so that one record has one verdict.
    return tuple(sorted(bad, key=lambda node: (-len(failures[node]), node)))


def dispensable(bad: Sequence[str], *, usable: Collection[str], needed: int) -> tuple[str, ...]:
    """Return those bad nodes, given worst first, that a job can be kept away from and still has the nodes it needs.

    `usable` are all nodes that the job could run on now, the bad ones among them.
    """
    left = set(usable)
    chosen = []
    # The worst first, since not all can be avoided where nodes are scarce.
    for node in bad:
        if len(left - {node}) >= needed:
            left.discard(node)
            chosen.append(node)
    return tuple(sorted(chosen))


def _since_progress(history: Sequence[Attempt]) -> list[Attempt]:
    """Return the newest attempts, back to the last one that wrote a checkpoint."""
    newest = []
    # A run that writes checkpoints makes progress, however often it fails: only failures since the last one count.
    for attempt in reversed(history):
        # The attempt that wrote it counts too: it failed after its checkpoint.
        newest.append(attempt)
        if attempt.last_step > attempt.first_step:
            break
    return newest[::-1]


def _failures_in_a_row(history: Sequence[Attempt]) -> int:
    """Count the failures since the run last wrote a checkpoint; attempts that Slurm took away do not count."""
    return sum(attempt.failed for attempt in _since_progress(history))
