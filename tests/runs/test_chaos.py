"""Disturbed runs end with the weights of one that never was; the campaign itself tells a run that went otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.chaos.campaign import Campaign, fingerprint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = 40


def campaign(make_run: Callable, folder: Path, num_ranks: int, seed: int) -> Campaign:
    run = make_run("unused")
    return Campaign(["train", str(run.config)], folder, run.shards, STEPS, num_ranks, seed)


@pytest.mark.usefixtures("warm_starts")
@pytest.mark.parametrize(("num_ranks", "num_faults", "num_resizes"), [(1, 5, 0), (2, 4, 1)])
def test_every_fault_is_survived_to_the_last_bit(
    make_run: Callable, tmp_path: Path, num_ranks: int, num_faults: int, num_resizes: int
) -> None:
    report = campaign(make_run, tmp_path / "campaign", num_ranks, seed=num_ranks).run(
        num_faults, num_resizes=num_resizes
    )
    told = [met for met in report["met"] if met["complaint"]]
    assert report["faults"] >= num_faults
    assert (report["survived"], report["bit_equal"]) == (report["faults"], report["faults"]), told
    # The first fault of the first run, and that of the second.
    assert "make kill" in report["kinds"]
    if report["runs"] > 1:
        assert "supervisor kill" in report["kinds"]
    # Another number of ranks adds the same numbers in another order.
    assert report["resized_loss_difference"] < 1e-5


def test_a_run_with_another_seed_has_other_losses_and_another_fingerprint(make_run: Callable) -> None:
    first, second = make_run("first"), make_run("second")
    for run, seed in ((first, 0), (second, 1)):
        [(status, _, errors)] = run.finish(f"seed={seed}", "train.steps=5")
        assert status == 0, errors
    assert fingerprint(first.folder)["step"] == fingerprint(second.folder)["step"] == "5"
    assert fingerprint(first.folder) != fingerprint(second.folder)
    # The head starts from zeros, so the first loss is log 10 whatever the seed.
    assert all(first.losses()[step] != second.losses()[step] for step in (2, 3, 4, 5))
