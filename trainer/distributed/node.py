"""Node: the ranks on the same host as this one, and the board that they share.

The ranks find each other in three exchanges:

    gather   host name, boot id, name space of process ids   -> the ranks of this host
    create   its first rank: memory that has no name
    gather   /proc/PID/fd/N of that memory                    -> the others open it
    gather   which of them could                              -> the path is closed; a kill leaves nothing behind
"""

import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.distributed.board import Board
from trainer.distributed.world import World


@dataclass(frozen=True)
class Node:
    """The ranks that see each other's memory and processes; each has the slot of its place in `ranks`."""

    rank: int
    """The rank of this process."""
    first_of: tuple[int, ...]
    """For every rank, the first rank of its host."""
    board: Board

    @staticmethod
    def join(world: World) -> "Node":
        """Return the node of this rank. Collective."""
        if world.world_size == 1:
            return Node(0, (0,), Board.alone())
        hosts = world.gather(_host())
        ranks = [rank for rank, host in enumerate(hosts) if host == hosts[world.rank]]
        made = Board.create(len(ranks)) if world.rank == ranks[0] and len(ranks) > 1 else None
        paths = world.gather(str(made.path) if made else "")
        board = made or _opened(paths[ranks[0]])
        # Containers of one host may see each other's names and not each other's memory: each is then a node of its own.
        joined = world.gather(ranks[0] if board else world.rank)
        if made:
            made.close_to_others()
        return Node(world.rank, tuple(joined), board or Board.alone())

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of this host, this one among them, ascending."""
        return self.of(self.first_of[self.rank])

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """The first rank of every host, ascending."""
        return tuple(sorted(set(self.first_of)))

    @property
    def first(self) -> int:
        """The first rank of this host."""
        return self.ranks[0]

    @property
    def is_head(self) -> bool:
        """Whether the first of all ranks is here."""
        return self.first == self.firsts[0]

    def of(self, first: int) -> tuple[int, ...]:
        """Return the ranks of the host whose first rank this is."""
        return tuple(rank for rank, other in enumerate(self.first_of) if other == first)

    def put(self, content: bytes) -> None:
        """Fill the slot of this rank."""
        self.board.put(self.ranks.index(self.rank), content)

    def get(self) -> dict[int, bytes]:
        """Return what the ranks of this host have in their slots; nothing of those that are empty."""
        slots = {rank: self.board.get(slot) for slot, rank in enumerate(self.ranks)}
        return {rank: content for rank, content in slots.items() if content}


def is_first_of_host(world: World) -> bool:
    """Return whether no rank before this one is of its host. Collective."""
    return world.gather(_host()).index(_host()) == world.rank


def _opened(path: str) -> Board | None:
    return Board.open(Path(path)) if path else None


def _host() -> tuple[str, str, str]:
    """Return what tells this host from all others, and its processes from those of another container on it."""
    # Two machines may have one host name. Ids of processes, and paths in /proc, hold within one name space.
    boot, pids = "", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        pids = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname(), boot, pids
