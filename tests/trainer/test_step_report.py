"""A step's numbers are read as one vector, and say whether the step was applied, skipped, or scaled too far."""

import math
from typing import Any

import pytest
import torch

from trainer.engine.gradient_watch import Notes
from trainer.engine.step_report import StartedStep, StepReport, Told, read_later
from trainer.engine.stopwatch import Stopwatch


class Watch(Stopwatch):
    """Has measured 1.5 seconds."""

    def read(self) -> float:
        return 1.5


def reported(*, can_rescale: bool = False, loss: float = 2.0, is_finite: bool = True, **more: Any) -> StepReport:  # noqa: ANN401
    told = Told(0.1, 16, can_rescale, 4.0, Watch(torch.device("cpu")))
    return StartedStep(
        told,
        loss=torch.tensor(loss),
        norm=torch.tensor(3.0),
        is_finite=torch.tensor(is_finite),
        flags=torch.tensor([0.0, 1.0, 2.0]),
        losses={"label": torch.tensor(5.0), "label/audio": torch.tensor(6.0)},
        squares={"decayed": torch.tensor(64.0), "exempt": torch.tensor(16.0)},
        **more,
    ).report()


def test_a_report_has_every_number_at_its_name() -> None:
    assert reported() == StepReport(
        loss=2.0,
        task_losses={"label": 5.0, "label/audio": 6.0},
        learning_rate=0.1,
        grad_norm=3.0,
        is_skipped=False,
        # Without the loss scale.
        group_norms={"decayed": 2.0, "exempt": 1.0},
        forward_seconds=1.5,
        num_samples=16,
        flags=(False, True, True),
        is_rescaled=False,
        notice="",
    )
    reached = Notes(1, 2, ("seen", "unseen.weight"), torch.tensor([1.0, 0.0]))
    assert reported(notes=reached).notice.startswith("no gradient came to 1 of 2 trained tensors in steps 1 to 2 (unse")


@pytest.mark.parametrize(
    ("can_rescale", "loss", "is_finite", "is_skipped", "is_rescaled"),
    [
        (False, 2.0, True, False, False),
        (True, 2.0, True, False, False),
        (False, 2.0, False, True, False),
        (True, 2.0, False, False, True),
        # A loss that is not finite is the fault of its batch.
        (True, math.inf, False, True, False),
        (True, math.nan, False, True, False),
    ],
)
def test_a_step_that_changed_nothing_was_skipped_or_scaled_too_far(
    can_rescale: bool, loss: float, is_finite: bool, is_skipped: bool, is_rescaled: bool
) -> None:
    found = reported(can_rescale=can_rescale, loss=loss, is_finite=is_finite)
    assert (found.is_skipped, found.is_rescaled) == (is_skipped, is_rescaled)


def test_numbers_of_a_gpu_are_copied_behind_its_work_and_waited_for_when_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[object] = []
    copied = torch.zeros(2)

    class Event:
        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait")

    class OnGpu:
        device, shape, dtype = torch.device("cuda"), torch.Size([2]), torch.float32

    def copy(numbers: object, *, non_blocking: bool) -> None:
        done.append((type(numbers), non_blocking))
        copied[:] = torch.tensor([1.0, 2.0])

    def empty(shape: torch.Size, *, dtype: torch.dtype, pin_memory: bool) -> object:
        done.append((tuple(shape), dtype, pin_memory))
        return type("Pinned", (), {"copy_": staticmethod(copy), "tolist": staticmethod(copied.tolist)})

    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("trainer.engine.step_report.torch.empty", empty)
    read = read_later(OnGpu())  # type: ignore[arg-type]  # in the place of a tensor there
    assert done == [((2,), torch.float32, True), (OnGpu, True), "record"]
    assert (read(), done[-1]) == ([1.0, 2.0], "wait")
    assert read_later(torch.tensor([3.0]))() == [3.0]
