"""A port of this machine for processes that a test starts to meet on."""

import socket

_holders: list[socket.socket] = []


def free_port() -> int:
    """Return a port that the system gives to no one else until this process ends.

    A port that is looked up and let go may be another test's by the time that a rank listens on it.
    """
    holder = socket.socket()
    # A second socket that allows it, too, may listen on the port, since this one never does.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _holders.append(holder)
    return int(holder.getsockname()[1])
