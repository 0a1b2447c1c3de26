"""RunState: the progress of a run. With the configuration it decides every step that follows.

    step     0  1  2  3  4  5
    batch    0  1  4  5  6  7      batches 2 and 3 went wrong: the run went back to step 2, and skips them

A batch is known by its number alone, so that nothing of the loader is part of the state.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Improvement:
    """What the evaluations of a run have brought, by the score that decides which checkpoint is the best."""

    best: float | None = None
    """The best score so far, higher is better; None before the first."""
    since_best: int = 0
    """Evaluations in a row since then that brought no better one."""

    def after(self, score: float, least: float) -> "Improvement":
        """Return this after one more evaluation; a score counts as better if it is more than `least` above the best."""
        # NaN is no score, and better than nothing it is not.
        is_better = score > (-math.inf if self.best is None else self.best + least)
        return Improvement(score, 0) if is_better else replace(self, since_best=self.since_best + 1)


@dataclass(frozen=True)
class RunState:
    """The state of a run between two steps, beside the tensors."""

    step: int = 0
    """Steps done; also how far the schedule is."""
    skipped_batches: tuple[int, ...] = ()
    """Batches that the run skipped after a rollback, in rising order."""
    skipped_steps: int = 0
    """Steps that updated nothing because the gradient was not finite, those among them that fp16 scaled too far."""
    skipped_in_a_row: int = 0
    """The number of skipped steps in a row up to the newest step, without those that fp16 scaled too far."""
    recent_losses: tuple[float, ...] = ()
    """The window that spikes are judged by; empty where they are not."""
    rollbacks: int = 0
    """Times that the run went back to a checkpoint."""
    improvement: Improvement = Improvement()
    """What the evaluations have brought, where they may end the run."""

    @property
    def batch_index(self) -> int:
        """The global batch of the next step."""
        return self.batch_of(self.step)

    def batch_of(self, step: int) -> int:
        """Return the global batch of a step: the step-th of all batches that are not skipped.

        With batches 2 and 3 skipped, steps 0 1 2 3 4 train on batches 0 1 4 5 6.
        """
        index = step
        for skipped in self.skipped_batches:
            # In rising order, each one shifts the rest by one.
            index += skipped <= index
        return index

    def after(
        self, loss: float | None = None, *, is_skipped: bool = False, is_rescaled: bool = False, window: int = 0
    ) -> "RunState":
        """Return the state one step later; `loss` joins a window of that many."""
        # A loss that is not finite would spoil the score of every loss in the window.
        losses = self.recent_losses if loss is None or is_skipped else (*self.recent_losses, loss)
        return replace(
            self,
            step=self.step + 1,
            skipped_steps=self.skipped_steps + (is_skipped or is_rescaled),
            skipped_in_a_row=self.skipped_in_a_row + 1 if is_skipped else 0,
            recent_losses=losses[-window:] if window else (),
        )

    def passing_over(self, passed: "PassedOver") -> "RunState":
        """Return this state with those of these batches marked to be skipped that are still to come."""
        # Those behind were trained on. To skip them too would shift every batch that follows, and the run would miss
        # some.
        coming = {batch for batch in passed.batches if batch >= self.batch_index}
        return replace(
            self,
            skipped_batches=tuple(sorted({*self.skipped_batches, *coming})),
            rollbacks=max(self.rollbacks, passed.rollbacks),
        )


@dataclass(frozen=True)
class PassedOver:
    """What a run learned from rollbacks. An earlier checkpoint does not contain it."""

    batches: tuple[int, ...] = ()
    """All batches that it skips, in rising order."""
    rollbacks: int = 0
    """Times that it went back."""

    def joined(self, other: "PassedOver") -> "PassedOver":
        """Return what both know."""
        batches = tuple(sorted({*self.batches, *other.batches}))
        return PassedOver(batches, max(self.rollbacks, other.rollbacks))


@dataclass(frozen=True)
class Averaged:
    """How the moving average of the weights was made that a checkpoint holds."""

    decay: float
    """The share of the old average in the new one."""
    updates: int
    """The number of times that weights were taken in."""


@dataclass(frozen=True)
class EngineState:
    """The numbers that belong to the optimizer's state beside its tensors."""

    steps: int
    """Steps made; also how far the schedule is."""
    applied_steps: float
    """The steps of them that changed the weights."""
    loss_scale: dict[str, int | float]
    """Fields of the loss scaler by name; empty where there is none."""
    average: Averaged | None = None
    """How the average of the weights was made; None where there is none."""
    details: dict[str, Any] = field(default_factory=dict)
    """Other state that its owner needs to resume, as JSON; a run stores nothing here."""
    late_steps: dict[str, float] = field(default_factory=dict)
    """The applied steps of what is trained from a later step on, by that step."""

    def applied_since(self, first_step: int) -> float:
        """Return the applied steps of what is trained from a step on."""
        return self.late_steps.get(str(first_step), 0.0) if first_step else self.applied_steps
