"""The MLP of a layer: with a GELU, as in the papers, or gated."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.config.attention import MlpKind
from model.parameters import Linear

Gelu = Literal["tanh", "erf"]


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, or gated by a third (arXiv 2002.05202).

    geglu: narrow(gelu(gate(x)) * widen(x)); swiglu: the same with SiLU.
    """

    def __init__(self, width: int, mlp_ratio: int, gelu: Gelu, kind: MlpKind = "gelu") -> None:
        super().__init__()
        self.widen = Linear(width, mlp_ratio * width)
        if kind != "gelu":
            self.gate = Linear(width, mlp_ratio * width)
        self.kind = kind
        self.narrow = Linear(mlp_ratio * width, width)
        # A word and not a function: with a function of its own, each layer would be compiled by itself.
        self.approximate = "tanh" if gelu == "tanh" else "none"

    def forward(self, values: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        """Return the transformed values."""
        out: Tensor = self.narrow(self._hidden(values))
        return out

    def _hidden(self, values: Tensor) -> Tensor:
        wide: Tensor = self.widen(values)
        if self.kind == "gelu":
            return functional.gelu(wide, approximate=self.approximate)
        gate: Tensor = self.gate(values)
        if self.kind == "swiglu":
            return functional.silu(gate) * wide
        return functional.gelu(gate, approximate=self.approximate) * wide
