"""How many files and connections a rank may open, and how many it needs. Standard library only."""

import resource
from contextlib import suppress

_NO_LIMIT = 1 << 40
_OF_ITS_OWN = 192
"""Libraries, logs, shards that are read, and the devices' own files."""
_FOR_EACH_RANK = 2
"""An exchange in which every rank has something for every other, as in a save; on rank 0 also where all meet."""
_GROUPS = 8
"""Channels of the ranks, DeepSpeed's among them; each may connect all pairs."""
CONNECTED_RANKS = 64
"""Up to this number of ranks, all pairs connect at the start: a rank that waits for a dead one learns of it at once.

With more, a rank connects to those that it exchanges with. One that dies before that is found by the watch over hangs.
"""


def raise_limit() -> int:
    """Let this process open as many files as it may at most, and return how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems say "unlimited" and grant less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _finite(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def hard_limit() -> int:
    """Return how many files this process may open at most."""
    return _finite(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def needed(world_size: int) -> int:
    """Return how many a rank among so many opens at most."""
    for_each = _GROUPS if world_size <= CONNECTED_RANKS else _FOR_EACH_RANK
    return _OF_ITS_OWN + for_each * world_size


def problem(limit: int, world_size: int) -> str:
    """Return why ranks that may open `limit` files cannot be so many, and the remedy; nothing where they can."""
    at_most = needed(world_size)
    if limit >= at_most:
        return ""
    return (
        f"a process may open {limit} files here (ulimit -Hn), and each of {world_size} ranks needs {at_most}; "
        "raise the hard limit: LimitNOFILE of slurmd's unit, nofile in /etc/security/limits.conf, or --ulimit of a "
        "container"
    )


def _finite(limit: int) -> int:
    return _NO_LIMIT if limit == resource.RLIM_INFINITY else limit
