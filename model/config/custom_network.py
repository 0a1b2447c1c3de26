"""A network of a user's own in place of the Perceiver: what a plug-in says of it. Standard library only.

model.network: {kind: vit, width: 64}    ->  Vit(width=64).module(inputs, outputs)  ->  a module of PyTorch
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model.config.grids import Problems
from model.modalities.input import Input
from model.outputs.output import Output

if TYPE_CHECKING:
    from torch import nn


class CustomNetwork(ABC):
    """A network that a plug-in makes: a frozen dataclass whose fields are the keys of `model.network`."""

    # Not derived from the class's name: a class can be renamed, and the configurations of runs must still be read.
    kind: str
    """The name by which a configuration chooses it."""

    @abstractmethod
    def module(self, inputs: Mapping[str, Input], outputs: Mapping[str, Output]) -> "nn.Module":
        """Return the network of a run with these inputs and outputs, sizes filled in.

        Its `forward(inputs)` takes a dict of tensors, (B, *shape) in the dtype of each input, and returns a dict with
        the answer of each output, in the shape that a Perceiver gives. Of the following it gets those that its
        signature names: `lengths`, entries of each input that are valid, 0 where a sample lacks it; `hidden`, the
        tokens that it must not see; `points`, the cells of a grid that are asked for.
        """

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem in its fields."""
        yield from ()


NETWORKS: dict[str, Any] = {}
"""The networks of the plug-ins in use, by their kind."""
