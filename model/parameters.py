"""Parameters and their initial values: truncated normals from one generator, so a seed decides every weight."""

import torch
from torch import Tensor, nn

# A normal of deviation 1 that is cut at two deviations has this deviation itself.
TRUNCATED_DEVIATION = 0.87962566103423978
# With 0.1 the papers' sweep diverged (appendix B, figure 6).
TABLE_DEVIATION = 0.02


def truncated_normal_(tensor: Tensor, deviation: float, generator: torch.Generator) -> None:
    """Fill the tensor with a normal that is cut at two deviations, as Haiku's TruncatedNormal is."""
    with torch.no_grad():
        # PyTorch's own bounds, -2 and 2, are absolute: for a deviation of 0.02 nothing would be cut.
        nn.init.trunc_normal_(tensor, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)


class Linear(nn.Linear):
    """A linear layer inside an attention or an MLP: deviation 1/sqrt(fan in) after the cut, bias 0."""

    deviation = 1 / TRUNCATED_DEVIATION

    def reset_parameters(self) -> None:
        """Leave the weights alone: `draw` fills them from a generator."""
        # PyTorch's own would draw from the global generator, which everything else in the process moves.

    def draw(self, generator: torch.Generator) -> None:
        """Fill the weights."""
        truncated_normal_(self.weight, self.deviation / self.in_features**0.5, generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Projection(Linear):
    """A linear layer around the network: deviation 1/sqrt(fan in) before the cut, as in Haiku's own Linear."""

    deviation = 1.0


class ZeroLinear(Linear):
    """The last linear layer of a classifier: it starts at 0."""

    deviation = 0.0

    def draw(self, generator: torch.Generator) -> None:  # noqa: ARG002  # the signature of all of them
        """Fill the weights with 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Table(nn.Module):
    """Learned vectors: latents, positions, queries, paddings, mask tokens and embeddings."""

    def __init__(self, num_rows: int, width: int, grid: tuple[int, ...] | None = None) -> None:
        """`grid` has the axes along which the rows lie, (num_rows,) if none is given; the empty one is of a set."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, width))
        # Kept for a transfer of weights, which interpolates along it; no forward pass asks.
        self.grid = (num_rows,) if grid is None else grid

    def draw(self, generator: torch.Generator) -> None:
        """Fill the vectors."""
        truncated_normal_(self.weight, TABLE_DEVIATION, generator)


class Convolution(nn.Conv2d):
    """A convolution without bias: deviation 1/sqrt(fan in) before the cut."""

    def __init__(self, num_channels: int, width: int, side: int, stride: int) -> None:
        super().__init__(num_channels, width, side, stride=stride, bias=False)

    def reset_parameters(self) -> None:
        """Leave the weights alone: `draw` fills them from a generator."""

    def draw(self, generator: torch.Generator) -> None:
        """Fill the weights."""
        truncated_normal_(self.weight, self.weight[0].numel() ** -0.5, generator)


class ByName(nn.ModuleDict):
    """Modules by names that users choose: PyTorch's own refuses names of its methods, such as "type" and "values"."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module."""
        assert module is not None
        self._modules[name] = module


def draw_parameters(network: nn.Module, seed: int) -> None:
    """Fill every parameter of the network from the seed, in the order of its modules."""
    # On the CPU, and parameter by parameter: a GPU's generator draws other numbers for the same seed.
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        # Norms keep PyTorch's ones and zeros, which are the papers' too.
        if isinstance(module, Linear | Table | Convolution):
            module.draw(generator)
