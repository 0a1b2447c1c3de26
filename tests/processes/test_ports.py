"""A port that a test was given is its own until the end."""

import socket

import pytest
from ports import free_port


def test_a_rank_may_listen_on_a_port_that_no_one_else_is_given() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        assert free_port() != port
