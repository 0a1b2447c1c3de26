"""An input of which parts are hidden from the network, which reconstructs them: masked modelling of patches."""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from model.config.grids import Problems
from model.outputs.grid import CellsOutput
from model.outputs.output import Network


@dataclass(frozen=True, kw_only=True)
class MaskedOutput(CellsOutput):
    """Values of the tokens that are hidden: patches of an image, a clip, a recording or an array.

    The network needs mask_tokens=true: a learned token stands in the place of each that is hidden.
    """

    kind: Literal["masked"] = "masked"
    """Chooses this kind of answer."""
    # As masked autoencoders found best for images (arXiv 2111.06377, section 4.1).
    fraction: float = 0.75
    """Part of the input's tokens that is hidden, others of every sample and in every epoch."""
    token_grid: tuple[int, ...] = ()
    """Tokens of the input along each axis; empty for those that it has."""

    def named(self, name: str, network: Network) -> "MaskedOutput":
        """Return this answer with its input, and the shape and tokens of that where none are given."""
        found = super().named(name, network)
        assert isinstance(found, MaskedOutput)
        known = network.input_named(found.target)
        return found if known is None or found.token_grid else replace(found, token_grid=tuple(known.grid))

    @property
    def num_hidden(self) -> int:
        """Tokens of a sample that are hidden."""
        # At least one: with nothing hidden there is nothing to reconstruct, and the loss would divide by 0.
        return max(1, round(self.fraction * prod(self.token_grid)))

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        if not 0 < self.fraction <= 1:
            yield "fraction", f"must be more than 0 and at most 1, got {self.fraction}"

    def network_problems(self, network: Network) -> Problems:
        """Yield (key, sentence) of what stands in the way of hiding the tokens of this network's input."""
        yield from super().network_problems(network)
        if network.input_named(self.target) is None:
            yield "target", f"needs inputs.{self.target}, whose tokens are hidden; set it, or target"
        elif len(self.token_grid) != len(self.shape):
            yield "shape", f"needs an axis for each of the tokens' {self.token_grid}, got {self.shape}"
        if not network.mask_tokens:
            yield "", "hides tokens of the input: set mask_tokens=true"
