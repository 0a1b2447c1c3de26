"""The processes of a run leave in good order, however late gloo's threads let go of what they were given."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.lifecycle import attempts
from launch.lifecycle.exit_status import BAD_INPUT
from launch.lifecycle.fence import NUMBER
from launch.lifecycle.run_folder import RunFolder

pytestmark = pytest.mark.slow
RunRanks = Callable[..., list]
LOOPBACK = "0100007F"
"""127.0.0.1 as the kernel writes it."""


def test_a_world_that_was_closed_ends_without_an_abort(run_ranks: RunRanks) -> None:
    assert run_ranks("leave", 2) == [True, True]


def test_a_rank_that_met_bad_input_ends_with_its_status(
    run_ranks: RunRanks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts.begin(RunFolder(tmp_path), job_id="", nodes=["here"])
    monkeypatch.setenv(NUMBER, "1")
    assert run_ranks("leave", 2, tmp_path, fails=True) == [BAD_INPUT, BAD_INPUT]


def test_ranks_of_one_machine_listen_on_it_alone(run_ranks: RunRanks) -> None:
    addresses = {address for rank in run_ranks("listen", 2) for address in rank}
    assert addresses == {LOOPBACK}
