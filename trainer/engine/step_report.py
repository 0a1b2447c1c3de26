"""StepReport: the result of one optimizer step. StartedStep: a step whose result has not been read yet."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.engine.gradient_watch import Notes, sentence
from trainer.engine.stopwatch import Stopwatch


@dataclass(frozen=True)
class StepReport:
    """The result of one step."""

    loss: float
    """The loss of the global batch, before the update."""
    task_losses: dict[str, float]
    """The unweighted loss of each task; in log lines also of its samples with a modality, as "task/modality"."""
    learning_rate: float
    """The rate with which the step was made."""
    grad_norm: float
    """The norm of the whole gradient before clipping; infinite or NaN if the step was skipped."""
    is_skipped: bool
    """Whether loss or gradient was not finite, so that nothing was updated on any rank."""
    group_norms: dict[str, float]
    """Norm of the gradient of each parameter group before clipping; empty between log lines."""
    forward_seconds: float
    """Time of this rank's forward passes: what the others cannot wait for yet, so that slow ranks show."""
    num_samples: int
    """Samples of the global batch."""
    flags: tuple[bool, ...] = ()
    """Which of the flags that the step was given any rank raised."""
    is_rescaled: bool = False
    """Whether the scaled gradient of fp16 left its range: nothing was updated either, and the scale is lowered."""
    notice: str = ""
    """What its user should be told after this step: parameters that no gradient reaches."""


@dataclass(frozen=True)
class Told:
    """The host's knowledge of a step when it starts."""

    learning_rate: float
    num_samples: int
    can_rescale: bool
    """Whether a gradient that is not finite may be one that fp16 scaled too far: at the lowest scale it is not."""
    loss_scale: float
    """The loss scale, by which the gradients of the groups are still multiplied."""
    watch: Stopwatch
    """Measures the forward passes."""


class StartedStep:
    """A step that the device may still be at; its numbers are on their way to the host."""

    def __init__(
        self,
        told: Told,
        *,
        loss: Tensor,
        norm: Tensor,
        is_finite: Tensor,
        flags: Tensor,
        losses: dict[str, Tensor],
        squares: dict[str, Tensor],
        notes: Notes | None = None,
    ) -> None:
        """`squares` has the squared norm of the gradient of each parameter group, over all ranks."""
        self._told, self._num_flags, self._notes = told, len(flags), notes
        self._tasks, self._groups = tuple(losses), tuple(squares)
        # As one vector: each number by itself would be a copy, and a wait, of its own.
        reached = notes.reached.unbind() if notes else ()
        values = [loss, norm, is_finite, *flags.unbind(), *losses.values(), *squares.values(), *reached]
        self._read: Callable[[], list[float]] = read_later(torch.stack([value.float() for value in values]))

    def report(self) -> StepReport:
        """Return what the step did; waits until the device has done it."""
        loss, norm, is_finite, *more = self._read()
        flags, numbers = more[: self._num_flags], iter(more[self._num_flags :])
        losses = {task: next(numbers) for task in self._tasks}
        squares = {group: next(numbers) for group in self._groups}
        notice = sentence(self._notes, list(numbers)) if self._notes else ""
        # fp16 overflows every time its scale is tried too high: that is no fault of the batch. A loss that is not
        # finite is.
        is_rescaled = bool(self._told.can_rescale and not is_finite and math.isfinite(loss))
        return StepReport(
            loss=loss,
            task_losses=losses,
            learning_rate=self._told.learning_rate,
            grad_norm=norm,
            is_skipped=not is_finite and not is_rescaled,
            group_norms={group: math.sqrt(square) / self._told.loss_scale for group, square in squares.items()},
            forward_seconds=self._told.watch.read(),
            num_samples=self._told.num_samples,
            flags=tuple(flag > 0 for flag in flags),
            is_rescaled=is_rescaled,
            notice=notice,
        )


def read_later(numbers: Tensor) -> Callable[[], list[float]]:
    """Start copying a vector to the host; what is returned gives it, and waits for the device only if it must.

    From a GPU the copy goes to page-locked memory behind the work that is queued, and waits for nothing but that.
    """
    if numbers.device.type != "cuda":
        return numbers.tolist
    # Page-locked: into other memory a copy from the device makes the host wait, non_blocking or not.
    copied = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    copied.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return copied.tolist()

    return read
