"""The configuration of the moving average of the weights, and the names of a run's weights. Standard library only."""

from collections.abc import Iterator
from dataclasses import dataclass

TRAINED, EMA = "trained", "ema"
"""The weights of a run: those that the optimizer updates, and their moving average."""


@dataclass(frozen=True)
class EmaConfig:
    """The exponential moving average (EMA) of the weights, kept beside them."""

    decay: float = 0.0
    """Share of the old average in the new one, such as 0.999. 0 keeps no average."""
    every_steps: int = 1
    """Steps between two updates of the average."""
    evaluate: bool = False
    """Evaluate the average in place of the trained weights, during the training and by the commands that are not told
    --weights. The best checkpoint is then that of the best average."""

    @property
    def evaluated(self) -> str:
        """The weights that the run evaluates."""
        return EMA if self.evaluate else TRAINED

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        if self.every_steps < 1:
            yield "every_steps", f"must be at least 1, got {self.every_steps}"
        # At 1 the correction by 1 - decay ** updates would divide by 0.
        if not 0 <= self.decay < 1:
            yield "decay", f"must be from 0 to below 1, got {self.decay}; 0.999 is usual"
        if self.evaluate and self.decay == 0:
            yield "evaluate", "evaluates the average, but ema.decay is 0, which keeps none; set ema.decay=0.999"

    def joint_problems(self, steps: int, evaluate_every_steps: int) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) where a run of so many steps ends, or evaluates, before the average has begun."""
        first = min(evaluate_every_steps or steps, steps) if self.evaluate else steps
        if self.decay > 0 and self.every_steps > first:
            what = "first evaluation" if first < steps else "end of the run"
            yield "ema.every_steps", f"is {self.every_steps}, after the {what} at step {first}; lower it"
