"""`data verify` calls exactly those samples bad that training refuses; agreement.py makes the folders."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.building.inspection import verification
from data_shards.format.annotations import OWN

sys.path.insert(0, str(Path(__file__).parent))
import agreement


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_verify_and_training_agree_on_every_sample_of_25_mutated_folders(seed: int) -> None:
    found = agreement.check(25, seed)
    assert found.disagreements == []
    assert found.samples > 100
    assert found.samples / 2 > found.bad > 10, "the mutations neither all break a sample nor all leave it alone"


def test_planted_fault_a_verify_that_reads_other_records_than_training_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = verification.intake
    monkeypatch.setattr(verification, "intake", lambda *words: replace(honest(*words), records=OWN))
    assert agreement.check(25, 11).disagreements


@pytest.mark.slow
def test_verify_and_training_agree_on_every_sample_of_200_mutated_folders() -> None:
    found = agreement.check(200, 2)
    assert found.disagreements == []
    assert found.outcomes["trainings"] > 25
