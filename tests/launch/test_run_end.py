"""A run has ended where it made its steps, or where its newest checkpoint says that evaluations ended it."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from launch.lifecycle.run_end import has_ended
from launch.lifecycle.run_folder import RunFolder
from trainer.checkpoint.names import MANIFEST
from trainer.run_state import Improvement, RunState


@pytest.mark.parametrize(
    ("steps", "patience", "is_over"), [(9, 0, False), (4, 0, True), (9, 3, True), (9, 4, False), (4, 9, True)]
)
def test_a_run_has_ended_by_its_steps_or_by_its_evaluations(
    tmp_path: Path, steps: int, patience: int, is_over: bool
) -> None:
    folder, state = RunFolder(tmp_path), RunState(step=4, improvement=Improvement(0.5, 3))
    save(folder.checkpoints_folder, 4, {"weight": torch.zeros(1)}, state=state)
    assert has_ended(folder, 4, steps=steps, patience=patience) is is_over


def test_a_damaged_checkpoint_ends_nothing_early(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), RunState(step=4, improvement=Improvement(0.5, 3))
    (save(folder.checkpoints_folder, 4, {"weight": torch.zeros(1)}, state=state) / MANIFEST).write_text("{}")
    assert not has_ended(folder, 4, steps=9, patience=3)
