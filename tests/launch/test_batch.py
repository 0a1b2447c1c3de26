import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from launch.batch import FIRST_PORT, NUM_PORTS, free_port, preferred_port

JOBS = st.integers(min_value=1, max_value=10**7)


@settings(max_examples=200, deadline=None)
@given(job=JOBS, distance=st.integers(min_value=1, max_value=100), attempt=st.integers(min_value=1, max_value=100))
def test_jobs_that_are_submitted_near_each_other_prefer_other_ports(job: int, distance: int, attempt: int) -> None:
    assert preferred_port(job, attempt) != preferred_port(job + distance, attempt)
    assert preferred_port(job, attempt) != preferred_port(job, attempt + 1)
    assert FIRST_PORT <= preferred_port(job, attempt) < FIRST_PORT + NUM_PORTS


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        port = free_port(preferred_port(1, 1))
        taken.bind(("", port))
        assert free_port(port) != port
