"""RunSink: a place for records in a file of a user's own, beside those that every run has."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from trainer.sinks.meter import Record


class RunSink(ABC):
    """Takes the records of a run on rank 0. Exceptions are reported and counted, and the run continues."""

    def __init__(self, run: Path, resumed_step: int) -> None:
        """`run` is the run's folder, `resumed_step` the step that the run begins or resumes at.

        A run that was killed comes back to an earlier step than its last record: drop what is of later steps, or it
        will be there twice.
        """
        self.run = run
        self.resumed_step = resumed_step

    @abstractmethod
    def write(self, kind: str, record: Record) -> None:
        """Take a record of a kind: "train", "evaluation", "save" or "event"; its "step" says when."""

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:  # noqa: B027  # may be left out
        """Take a picture, uint8 (H, W, 3)."""

    def rewind(self, step: int) -> None:  # noqa: B027  # may be left out
        """Forget what came after this step: the run went back to it."""

    def close(self) -> None:  # noqa: B027  # may be left out
        """Finish."""
