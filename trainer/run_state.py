"""RunState: where a run is. With the seed it decides every step that follows."""

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class RunState:
    """The state of a run between two steps, beside the tensors."""

    step: int = 0
    """Steps done; also how far the schedule is."""
    skipped_batches: tuple[int, ...] = ()
    """Batches that the run passed over after it went back, in rising order."""
    skipped_steps: int = 0
    """Steps that updated nothing because the gradient was not finite."""
    rollbacks: int = 0
    """Times that the run went back to a checkpoint."""

    @property
    def batch_index(self) -> int:
        """The global batch of the next step: the step-th of all batches that are not skipped."""
        index = self.step
        for skipped in self.skipped_batches:
            index += skipped <= index
        return index

    def after(self, *, is_skipped: bool = False) -> "RunState":
        """Return the state one step later."""
        return replace(self, step=self.step + 1, skipped_steps=self.skipped_steps + is_skipped)

    def passing_over(self, batches: tuple[int, ...], rollbacks: int) -> "RunState":
        """Return this state, which an earlier run loaded, so that it goes on past more batches."""
        return replace(self, skipped_batches=tuple(sorted({*self.skipped_batches, *batches})), rollbacks=rollbacks)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "RunState":
        """Return the state of `to_json`."""
        return RunState(**{**fields, "skipped_batches": tuple(fields["skipped_batches"])})
