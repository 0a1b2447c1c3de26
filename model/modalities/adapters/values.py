"""The adapters of sound, points, text and labels: values as the loader delivers them -> tokens.

B samples, M tokens, C channels of a token
S audio samples or frames of a spectrogram, P points, A coordinates and features, L characters
"""

from typing import Any, Protocol

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from model.config.grids import PositionsConfig
from model.modalities.adapters.boxes import boxes
from model.modalities.array import ArrayInput
from model.modalities.audio import AudioInput
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.parameters import Projection, Table
from model.positions import GridAdapter, Positions, fourier_features


class AudioAdapter(GridAdapter):
    """Patches of raw samples or of a spectrogram, each with its place in time, or on (time, frequency)."""

    def __init__(self, config: AudioInput) -> None:
        super().__init__()
        self.config = config
        self.positions = Positions(config.positions, config.grid)

    def content(self, samples: Float[Tensor, "B S *c"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of recordings without their positions."""
        if not self.config.patch_bins:
            return samples.to(dtype).reshape(samples.shape[0], -1, self.config.content_width)
        return boxes(samples.to(dtype)[..., None], (self.config.patch, self.config.patch_bins))


class BoxesConfig(Protocol):
    """What BoxesAdapter asks of an input."""

    channel_axis: int | None
    """The axis of the values of a cell; None where a cell is one value."""
    sides: tuple[int, ...]
    """Cells of a token along each other axis."""
    raw_width: int
    project_to: int
    positions: PositionsConfig
    grid: tuple[int, ...]


class BoxesAdapter(GridAdapter):
    """Boxes of a grid of any number of axes, each with its place on them, after a linear layer if there is one."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401  # a BoxesConfig, whose fields are properties
        super().__init__()
        self.config: BoxesConfig = config
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.positions = Positions(config.positions, config.grid)

    def content(self, values: Shaped[Tensor, "B *S"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of arrays without their positions."""
        axis = self.config.channel_axis
        cells = values[..., None] if axis is None else values.movedim(axis + 1, -1)
        out: Tensor = self.project(boxes(cells.to(dtype), self.config.sides))
        return out


class PlacedAdapter(nn.Module):
    """Cells of an array, each with the Fourier features of the coordinates that its sample gives it."""

    def __init__(self, config: ArrayInput) -> None:
        super().__init__()
        self.config = config
        self.project = Projection(config.raw_width, config.project_to) if config.project_to else nn.Identity()
        self.max_resolution = [float(top) for top in config.fourier_resolution]

    def forward(
        self, values: Shaped[Tensor, "B *S"], dtype: torch.dtype, places: Float[Tensor, "B *T A"]
    ) -> Float[Tensor, "B M C"]:
        """Return the tokens of arrays with their coordinates."""
        axis = self.config.channel_axis
        cells = values[..., None] if axis is None else values.movedim(axis + 1, -1)
        content_BMc = self.project(cells.to(dtype).flatten(1, -2))
        # In at least float32: see PointsAdapter.
        exact_BMA = places.flatten(1, -2).to(torch.promote_types(dtype, torch.float32))
        features = fourier_features(exact_BMA, self.config.positions.num_bands, self.max_resolution)
        return torch.cat([content_BMc, features.to(content_BMc.dtype)], dim=-1)


class PointsAdapter(nn.Module):
    """The Fourier features of every point's coordinates, which are values here, and then the point's own features."""

    def __init__(self, config: PointsInput) -> None:
        super().__init__()
        self.config = config

    def forward(self, points_BPA: Float[Tensor, "B P A"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of clouds in [-1, 1]."""
        # In at least float32 whatever the network computes in: at 1 120 half periods a unit, bfloat16 would be noise.
        places = points_BPA[..., : self.config.dimensions].to(torch.promote_types(dtype, torch.float32))
        # A resolution is twice the highest frequency that it can show.
        resolution = [2 * self.config.max_frequency] * self.config.dimensions
        positions = fourier_features(places, self.config.num_bands, resolution).to(dtype)
        if not self.config.num_features:
            return positions
        return torch.cat([positions, points_BPA[..., self.config.dimensions :].to(dtype)], dim=-1)


class TextAdapter(nn.Module):
    """The embedding of every byte or token plus the learned vector of its place."""

    def __init__(self, config: TextInput) -> None:
        super().__init__()
        self.config = config
        # The empty grid: an embedding is a set of rows, which a transfer of weights may cut or add to, not interpolate.
        self.embedding = Table(config.vocabulary, config.embedding_width, ())
        self.places = Table(config.max_tokens, config.embedding_width)

    def forward(self, ids_BL: Int[Tensor, "B L"], dtype: torch.dtype) -> Float[Tensor, "B M C"]:
        """Return the tokens of ids."""
        embedded = functional.embedding(ids_BL.long(), self.embedding.weight)
        return (embedded + self.places.weight[: ids_BL.shape[1]]).to(dtype)


class LabelAdapter(nn.Module):
    """A class as one token, one-hot."""

    def __init__(self, config: LabelInput) -> None:
        super().__init__()
        self.config = config

    def forward(self, labels_B: Int[Tensor, " B"], dtype: torch.dtype) -> Float[Tensor, "B 1 C"]:
        """Return the token of every label; one that is not known (negative) is all zeros."""
        known = functional.one_hot(labels_B.long().clamp(min=0), self.config.num_classes).to(dtype)
        return (known * (labels_B >= 0)[:, None])[:, None]
