from dataclasses import replace

import pytest

from launch.lifecycle.restart_policy import Attempt, RestartConfig, bad_nodes, dispensable, failures_by_node, verdict

CONFIG = RestartConfig(max_requeues=2, max_failures=3, exclude_after=2)


def attempt(status: int | None, *, progress: int = 0, failed_on: str = "") -> Attempt:
    return Attempt(1, "7", ("n1", "n2"), 0.0, 10, 1.0, status, 10 + progress, (failed_on,) if failed_on else ())


def again(*history: Attempt, stop_requested: bool = False) -> bool:
    return verdict(history, CONFIG, stop_requested=stop_requested).again


def test_a_run_that_finished_or_was_given_bad_input_is_not_started_again() -> None:
    assert not again(attempt(0))
    assert not again(attempt(2))


def test_a_run_that_saved_goes_on_unless_its_user_stopped_it() -> None:
    assert again(attempt(85))
    assert not again(attempt(85), stop_requested=True)


def test_orderly_stops_have_a_limit_of_their_own() -> None:
    assert again(attempt(85), attempt(1), attempt(85))
    assert not again(attempt(85), attempt(85), attempt(85))


def test_failures_count_only_since_the_last_checkpoint() -> None:
    assert not again(attempt(1), attempt(137), attempt(1))
    assert again(attempt(1), attempt(1, progress=5), attempt(1))


def test_an_attempt_that_slurm_took_away_is_no_failure() -> None:
    assert again(attempt(1), attempt(None), attempt(1))
    assert not attempt(None).failed


def test_a_node_is_bad_after_as_many_failures_as_were_allowed() -> None:
    twice = [attempt(1, failed_on="n2"), attempt(1, failed_on="n1"), attempt(137, failed_on="n2")]
    assert bad_nodes(twice, CONFIG) == ("n2",)
    assert bad_nodes(twice, replace(CONFIG, exclude_after=0)) == ()
    assert bad_nodes(twice, replace(CONFIG, exclude_after=1)) == ("n2", "n1")
    assert bad_nodes([attempt(85, failed_on="n2")] * 3, CONFIG) == ()


def test_only_failures_since_the_run_last_wrote_a_checkpoint_speak_against_a_node() -> None:
    failed = attempt(1, failed_on="n2")
    assert bad_nodes([failed, failed, attempt(85, progress=5)], CONFIG) == ()
    assert bad_nodes([failed, attempt(1, progress=5, failed_on="n2")], CONFIG) == ()
    assert bad_nodes([failed, attempt(1, progress=5, failed_on="n2"), failed], CONFIG) == ("n2",)
    numbered = [replace(failed, number=3), replace(failed, number=4, failed_nodes=("n1", "n2"))]
    assert failures_by_node([attempt(0, progress=1), *numbered]) == {"n2": [3, 4], "n1": [4]}


def test_the_worst_nodes_come_first() -> None:
    history = [attempt(1, failed_on=node) for node in ("n1", "n2", "n2", "n1", "n2")]
    assert bad_nodes(history, CONFIG) == ("n2", "n1")


@pytest.mark.parametrize(
    ("usable", "needed", "expected"),
    [
        (("n1", "n2", "n3", "n4"), 2, ("n1", "n2")),
        (("n1", "n2", "n3"), 2, ("n2",)),
        (("n1", "n2"), 2, ()),
        (("n1", "n2"), 1, ("n2",)),
        # It is down: to keep the job away from it costs nothing.
        (("n1", "n3", "n4"), 3, ("n2",)),
        # Slurm does not say what there is.
        ((), 1, ()),
    ],
)
def test_a_job_is_left_as_many_nodes_as_it_needs(
    usable: tuple[str, ...], needed: int, expected: tuple[str, ...]
) -> None:
    assert dispensable(("n2", "n1"), usable=usable, needed=needed) == expected


def test_the_failure_of_the_attempt_that_made_progress_counts_too() -> None:
    assert not again(attempt(1), attempt(1, progress=5), attempt(1), attempt(1))
    assert failures_by_node([attempt(1, progress=5, failed_on="n2")]) == {"n2": [1]}


def test_no_restart_at_all_can_be_asked_for() -> None:
    never = RestartConfig(max_requeues=0, max_failures=0)
    assert list(never.problems()) == []
    assert not verdict([attempt(85)], never, stop_requested=False).again
    assert not verdict([attempt(1)], never, stop_requested=False).again
    assert verdict([attempt(1)], RestartConfig(max_failures=2), stop_requested=False).again


def test_what_follows_is_told_with_the_counts() -> None:
    failed = verdict([attempt(85), attempt(1), attempt(3)], CONFIG, stop_requested=False)
    assert failed.reason == "failed with status 3, failure 2 of 3 without a checkpoint between"
    asked = verdict([attempt(85), attempt(1), attempt(85)], CONFIG, stop_requested=False)
    assert asked.reason == "saved and exited in good order; restart 2 of 2"


def test_negative_limits_are_refused() -> None:
    keys = ("max_requeues", "max_failures", "exclude_after")
    assert [[key for key, _ in RestartConfig(**{name: -1}).problems()] for name in keys] == [[name] for name in keys]
    assert [key for key, _ in RestartConfig(max_failures=-1).problems()] == ["max_failures"]
