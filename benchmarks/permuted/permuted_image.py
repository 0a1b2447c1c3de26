"""Pictures whose pixels are in one fixed order, by rows or at random: a plug-in of `benchmarks/permuted`.

    data.inputs.image: {modality: permuted_image, order: permuted, height: 8, width: 8}

A random order is the same for every picture. Fourier positions travel with their pixels, as in section 4.1 of the first
paper: a token is the same pixel with the same position, at another place of the byte array. Learned positions belong to
the place in the byte array.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from model.modalities.adapters.pixels import ImageAdapter
from model.positions import whole_table
from perceiver_trainer import ImageConfig, ImageInput, Members, Prepared


def places(num_pixels: int) -> np.ndarray:
    """Return which pixel comes at each place."""
    return np.random.Generator(np.random.Philox(key=0)).permutation(num_pixels)


@dataclass(frozen=True)
class PermutedImage(ImageConfig):
    """A picture whose pixels were put into another order."""

    modality: Literal["permuted_image"] = "permuted_image"  # type: ignore[assignment]  # a plug-in's
    order: Literal["raw", "permuted"] = "permuted"

    @property
    def sizes(self) -> dict[str, Any]:
        return super().sizes | {"order": self.order}

    def prepare(self, found: Members, rng: np.random.Generator | None) -> Prepared:
        prepared = super().prepare(found, rng)
        if self.order == "raw":
            return prepared
        pixels = prepared.array.reshape(-1, self.num_channels)
        return replace(prepared, array=pixels[places(len(pixels))].reshape(prepared.array.shape))


@dataclass(frozen=True)
class PermutedImageInput(ImageInput):
    """Its tokens: pixels with their positions."""

    modality: Literal["permuted_image"] = "permuted_image"  # type: ignore[assignment]  # a plug-in's
    order: str = ""
    is_separable: ClassVar[bool] = False

    def adapter(self) -> nn.Module:
        is_moved = self.order == "permuted" and self.positions.kind == "fourier"
        return _Moved(self) if is_moved else ImageAdapter(self)


class _Moved(nn.Module):
    def __init__(self, config: ImageInput) -> None:
        super().__init__()
        self.pixels = ImageAdapter(config)
        self.register_buffer("places", torch.from_numpy(places(config.num_tokens)), persistent=False)

    def forward(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the pixels with the positions that they had before the permutation."""
        content = self.pixels.content(value, dtype)
        positions = whole_table(self.pixels.positions.axis_tables)[self.get_buffer("places")]
        return torch.cat([content, positions.to(dtype).expand(len(content), -1, -1)], dim=-1)
