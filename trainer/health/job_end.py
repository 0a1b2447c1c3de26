"""JobEnd: what a rank does after a verdict. It keeps the stacks of all ranks and leaves no process on any host.

The keeper of a host is its first rank that the verdict does not name.

    every rank   knows -> writes its stacks ------------------------------------- until "goes", or no keeper -> exits
    keeper       knows -> writes its stacks -> all of its host know
                                            -> stacks of the other hosts exist -> wakes stopped ranks, to write theirs
                                            -> all of its host have written -> "goes" -> kills what is left

Each arrow of the keeper has a limit. Without the waits, the first rank that leaves breaks the exchange in which the
others wait, and they leave before they have written.
"""

import faulthandler
import os
import signal
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from data_shards.files import atomic
from trainer.health import verdict
from trainer.health.heartbeats import LEFT, Beat, Beats
from trainer.health.process import lives

_GRACE_SECONDS = 5.0
KNOWS, _WROTE, _GOES = "knows", "wrote its stacks", "goes"
"""The progress of a rank, as in its heartbeats."""


class JobEnd:
    """The end of one rank, in step with those of its host, which it hears, and of other hosts, whose stacks it sees."""

    def __init__(self, folder: Path, rank: int, ranks: Beats, tell: Callable[[str], None], period: float) -> None:
        """`tell` tells how far this rank is; other hosts know of a verdict `period` seconds after it at the latest."""
        self._folder, self._rank, self._ranks = folder, rank, ranks
        self._tell, self._period = tell, period

    def now(self, error: BaseException | None = None) -> NoReturn:
        """Write the stacks of this process and end it: the main thread may be in a call that never returns."""
        stacks = self._folder / f"stacks_rank_{self._rank}.txt"
        # On a full disk the job ends without them.
        with suppress(OSError), atomic.written_beside(stacks, survives_power_cut=False) as file:
            file.write("".join(traceback.format_exception(error) if error else ()).encode())
            file.flush()
            faulthandler.dump_traceback(file.fileno(), all_threads=True)
        self._tell(_WROTE)
        culprits = verdict.convicted_pids(self._folder)
        # One innocent rank a host sees to it that nothing is left behind there.
        keeper = min(self._ranks.present(), key=lambda beat: (beat.rank in culprits, beat.rank))
        if keeper.rank == self._rank:
            self._keep(culprits)
        else:
            _wait(lambda: self._has_gone(keeper), 3 * _GRACE_SECONDS + self._period)
        # No clean-up: it would wait for the rank that hangs.
        os._exit(1)

    def _keep(self, culprits: Collection[int]) -> None:
        """Let the ranks of this host write their stacks and end; then end what is left of them."""
        present = self._ranks.present
        # Who leaves breaks the exchange that the others wait in, and they would leave before they have written; who
        # wakes a stopped rank lets them continue.
        _wait(lambda: all(beat.end or beat.rank in culprits for beat in present()), _GRACE_SECONDS)
        if len(self._ranks.node.firsts) > 1:
            _wait(lambda: self._have_written(culprits), _GRACE_SECONDS + self._period)
        _signal(self._others(), signal.SIGCONT)  # a stopped process can write its stacks then
        _wait(lambda: all(beat.end in (_WROTE, _GOES) for beat in present()), _GRACE_SECONDS)
        self._tell(_GOES)
        _wait(lambda: not any(map(lives, self._others())), _GRACE_SECONDS)
        _signal(self._others(), signal.SIGKILL)

    def _has_gone(self, keeper: Beat) -> bool:
        return not lives(keeper.pid) or any(
            beat.rank == keeper.rank and beat.end == _GOES for beat in self._ranks.here()
        )

    def _others(self) -> list[int]:
        """Return the processes of the other ranks of this host."""
        return [beat.pid for beat in self._ranks.present() if beat.rank != self._rank]

    def _have_written(self, culprits: Collection[int]) -> bool:
        """Return whether the stacks of all innocent ranks exist. One rank per host reads the folder once."""
        present = {rank for rank, (beat, _) in self._ranks.newest.items() if beat.phase != LEFT}
        there = {path.name for path in self._folder.glob("stacks_rank_*.txt")}
        return all(f"stacks_rank_{rank}.txt" in there for rank in present.difference(culprits))


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    # Processes of this host alone: an id says nothing on another one.
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(done: Callable[[], bool], seconds: float) -> None:
    """Wait until it is done, but no longer than this."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)
