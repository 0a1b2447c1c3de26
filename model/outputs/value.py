"""Numbers of a sample that are not classes: regression."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Literal

from model.config.grids import Problems, positive
from model.outputs.output import Network
from model.outputs.vector import VectorOutput

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ValueOutput(VectorOutput):
    """One or several numbers. `target` is one of data.values; empty for the one of this answer's name."""

    kind: Literal["value"] = "value"
    """Chooses this kind of answer."""
    num_values: int = 1
    """How many numbers a sample has."""
    loss: Literal["squared", "absolute", "huber"] = "squared"
    """The loss on the difference to the true number."""
    huber_delta: float = 1.0
    """Difference, in units of `scale`, from which loss=huber grows in proportion."""
    offset: float = 0.0
    """The prediction of an untrained network. Set it to the mean of the true numbers."""
    scale: float = 1.0
    """The unit in which the network computes and the loss is taken; best the deviation of the true numbers."""

    @property
    def num_answered(self) -> int:
        """The numbers."""
        return self.num_values

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":
        """Return the layer, and the way from its unit to that of the target."""
        from model.outputs.modules.heads import ScaledHead

        return ScaledHead(super().head(width, network, embedding), self.offset, self.scale)

    def named(self, name: str, network: Network) -> "ValueOutput":  # noqa: ARG002
        """Return this answer; its target has its name unless another is given."""
        return self if self.target else replace(self, target=name)

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the numbers."""
        return (("value", self.target),)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from positive(num_values=self.num_values)
        if not isfinite(self.offset):
            yield "offset", f"must be finite, got {self.offset}"
        # Errors are divided by the one, and below the other they are squared.
        for name in ("scale", "huber_delta"):
            if not 0 < getattr(self, name) < inf:
                yield name, f"must be positive, got {getattr(self, name)}"
