"""Optical flow: the motion of every pixel from the first frame of a pair to the second."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod
from typing import TYPE_CHECKING, Literal

from model.config.cost import Cost, linear
from model.config.grids import Problems
from model.modalities.flow import FlowInput
from model.outputs.output import Network, Output

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class FlowOutput(Output):
    """The motion of every pixel; the input's tokens are the queries.

    `target` is the pair of frames; empty for the input of this answer's name.
    """

    kind: Literal["flow"] = "flow"
    """Chooses this kind of answer."""
    # As in the released code, whose weights depend on it.
    rescale: float = 100.0
    """The divisor of the decoded values."""

    def named(self, name: str, network: Network) -> "FlowOutput":  # noqa: ARG002
        """Return this answer with the frames that it is about."""
        return self if self.target else replace(self, target=name)

    def wanted(self) -> tuple[tuple[str, str], ...]:
        """Return the motion between the frames."""
        return (("motion", self.target),)

    def own_width(self, network: Network) -> int:
        """Return the channels of a token."""
        return network.token_width

    def num_queries(self, network: Network) -> int:
        """Return the cells of a frame."""
        frames = self._frames(network)
        return prod(frames.cells) if frames else 0

    def queries(self, network: Network) -> "nn.Module":
        """Return the tokens of the first frame."""
        from model.outputs.modules.queries import InputQueries

        return InputQueries(self.num_queries(network))

    def head(self, width: int, network: Network, embedding: "Callable[[str], Tensor]") -> "nn.Module":  # noqa: ARG002
        """Return a linear layer, or the upsampling where cells are coarser than pixels."""
        from model.outputs.modules.heads import UpsamplingHead, flow_head

        frames = self._frames(network)
        assert frames is not None
        shape, factor = (frames.height, frames.width), frames.upsampling
        if factor > 1:
            return UpsamplingHead(width, shape, factor, self.rescale)
        return flow_head(width, shape, self.rescale)

    def answers_points(self) -> bool:
        """Return True: a pixel is answered without the others, but where cells are coarser."""
        return True

    def queries_cost(self, network: Network) -> Cost:  # noqa: ARG002
        """Return nothing: tokens are there."""
        return Cost()

    def head_cost(self, width: int, num_asked: int, network: Network) -> Cost:
        """Return the cost of the layer, and of the upsampling."""
        frames = self._frames(network)
        side = frames.upsampling if frames else 1
        if side == 1:
            return linear(width, 2, num_asked)
        # The weights of 3x3 cells in every pixel of a cell, and the products with their motion.
        weights = linear(9 * width, 9 * side**2, num_asked)
        return linear(width, 2, num_asked) + weights + Cost(flops=2 * num_asked * side**2 * 9 * 2)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        if not 0 < self.rescale < inf:
            yield "rescale", f"must be positive, got {self.rescale}"

    def network_problems(self, network: Network) -> Problems:
        """Yield (key, sentence) of what stands in the way."""
        frames = self._frames(network)
        # The first tokens are the queries: those of another input would be among them.
        if frames is None or frames.num_tokens != network.num_tokens:
            yield "", f"needs inputs.{self.target} of frames and no other input: its queries are the input's tokens"

    def _frames(self, network: Network) -> FlowInput | None:
        frames = network.input_named(self.target)
        return frames if isinstance(frames, FlowInput) else None
