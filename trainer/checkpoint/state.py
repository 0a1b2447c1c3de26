"""The state that a store saves and restores: any object that returns its tensors by name and accepts them again."""

from typing import Protocol

import torch
from torch import Tensor

from trainer.optim.ownership import Saved
from trainer.run_state import EngineState


class Checkpointed(Protocol):
    """A network and its optimizer, spread over the ranks or alike on all of them. Every method: Collective."""

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Return by kind and name the whole tensors that this rank writes, in host memory, until the next call."""
        ...

    def progress(self) -> EngineState:
        """Return what belongs to the state beside the tensors."""
        ...

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        """Return by kind and name the shapes of the tensors that a checkpoint must have."""
        ...

    def restore(self, read: Saved, progress: EngineState) -> None:
        """Take over a state whose tensors have our shapes; ValueError on all ranks where one cannot be read."""
        ...
