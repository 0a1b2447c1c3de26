"""The inputs of a network, one dataclass a modality; what follows from their fields is a property.

Every modality becomes a grid of tokens: `grid` is its shape, `num_tokens` the product, `token_width` the channels.
"""

from dataclasses import dataclass, field
from typing import Literal

from model.config_grids import PositionsConfig, Problems, TokenGrid, cuts

PixelRange = Literal["unit", "centred", "imagenet"]


@dataclass(frozen=True)
class ImageInput(TokenGrid):
    """Pixels (H, W, 3), or square patches of them, or a convolution's features."""

    height: int = 224
    """Rows of pixels."""
    width: int = 224
    """Columns of pixels."""
    num_channels: int = 3
    """Channels of a pixel."""
    patch: int = 1
    """Side of the square patch that makes one token; 1 means pixels."""
    conv_stem: bool = False
    """Whether a 7x7 convolution to 64 channels and a max-pool, both of stride 2, come first."""
    project_to: int = 0
    """Channels of a linear layer over the patch (with patch 1: a 1x1 convolution); 0 leaves it out."""
    pixel_range: PixelRange = "unit"
    """What uint8 pixels become: [0, 1], [-1, 1], or ImageNet's mean 0 and deviation 1. Floats are taken as they are."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (row, column)."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of tokens; SAME padding rounds the convolution's up."""
        if self.conv_stem:
            return (-(-self.height // 4), -(-self.width // 4))
        return (self.height // self.patch, self.width // self.patch)

    @property
    def entries_per_row(self) -> int:
        """Rows of pixels that a row of tokens covers."""
        return 4 if self.conv_stem else self.patch

    @property
    def content_width(self) -> int:
        """Channels of a patch, of the convolution or of the linear layer."""
        return self.project_to or (64 if self.conv_stem else self.patch**2 * self.num_channels)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from cuts(height=(self.height, self.patch), width=(self.width, self.patch))
        if self.pixel_range == "imagenet" and self.num_channels != 3:
            yield "pixel_range", f"imagenet is defined for 3 channels, got {self.num_channels}; use unit"
        if self.conv_stem and self.patch != 1:
            yield "patch", f"must be 1 with conv_stem, got {self.patch}"


@dataclass(frozen=True)
class AudioInput(TokenGrid):
    """Mono samples, cut into patches."""

    num_samples: int = 30_720
    """Samples of a recording."""
    patch: int = 16
    """Samples that make one token."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions in time."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches of the recording."""
        return (self.num_samples // self.patch,)

    @property
    def entries_per_row(self) -> int:
        """Samples of a patch."""
        return self.patch

    @property
    def content_width(self) -> int:
        """Samples of a patch."""
        return self.patch

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        yield from cuts(num_samples=(self.num_samples, self.patch))


@dataclass(frozen=True)
class SpectrogramInput(TokenGrid):
    """A spectrogram (T, F); every cell is a token."""

    num_frames: int = 100
    """Frames in time."""
    num_bins: int = 48
    """Bins of frequency."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (time, frequency)."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Frames and bins."""
        return (self.num_frames, self.num_bins)

    @property
    def content_width(self) -> int:
        """One value a cell."""
        return 1


@dataclass(frozen=True)
class VideoInput(TokenGrid):
    """Frames (T, H, W, 3), cut into boxes."""

    num_frames: int = 16
    """Frames of a clip."""
    height: int = 224
    """Rows of pixels."""
    width: int = 224
    """Columns of pixels."""
    num_channels: int = 3
    """Channels of a pixel."""
    patch_frames: int = 1
    """Frames that a token spans."""
    patch: int = 4
    """Side of the square that a token spans in each of its frames."""
    project_to: int = 0
    """Channels of a linear layer over the box; 0 leaves it out."""
    pixel_range: PixelRange = "unit"
    """What uint8 pixels become; see the image's."""
    positions: PositionsConfig = field(default_factory=lambda: PositionsConfig(num_bands=32))
    """Positions on (time, row, column)."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Boxes along time, rows and columns."""
        return (self.num_frames // self.patch_frames, self.height // self.patch, self.width // self.patch)

    @property
    def entries_per_row(self) -> int:
        """Frames of a box."""
        return self.patch_frames

    @property
    def content_width(self) -> int:
        """Channels of a box or of the linear layer."""
        return self.project_to or self.patch_frames * self.patch**2 * self.num_channels

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        sides = {"height": (self.height, self.patch), "width": (self.width, self.patch)}
        yield from cuts(num_frames=(self.num_frames, self.patch_frames), **sides)


@dataclass(frozen=True)
class PointsInput(TokenGrid):
    """A cloud of points (P, 3): a token is the Fourier features of its point's coordinates."""

    num_points: int = 2_048
    """Points of a cloud."""
    num_channels: int = 3
    """Coordinates of a point, expected in [-1, 1]."""
    num_bands: int = 64
    """Frequencies a coordinate, evenly spaced from 1 to the maximum."""
    max_frequency: float = 1_120.0
    """Highest frequency, in half periods a unit."""

    @property
    def grid(self) -> tuple[int, ...]:
        """The points."""
        return (self.num_points,)

    @property
    def content_width(self) -> int:
        """Coordinates, sines and cosines."""
        return self.num_channels * (2 * self.num_bands + 1)

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        yield from super().problems()
        if self.max_frequency < 1:
            yield "max_frequency", f"must be at least 1, got {self.max_frequency}"


@dataclass(frozen=True)
class TextInput(TokenGrid):
    """Bytes or tokens: an embedding plus a learned position, added."""

    max_tokens: int = 2_048
    """Longest text; shorter ones are padded and masked."""
    vocabulary: int = 262
    """Ids; 262 are the 256 bytes after PAD, BOS, EOS, MASK, CLS and SEP."""
    embedding_width: int = 768
    """Channels of the embedding and of the position."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Places in the text."""
        return (self.max_tokens,)

    @property
    def content_width(self) -> int:
        """Channels of the embedding."""
        return self.embedding_width


@dataclass(frozen=True)
class FlowInput(TokenGrid):
    """Two frames (2, H, W, 3): the 3x3 neighbourhoods of a pixel, and a linear layer over them."""

    height: int = 368
    """Rows of pixels."""
    width: int = 496
    """Columns of pixels."""
    num_channels: int = 3
    """Channels of a pixel."""
    project_to: int = 64
    """Channels of the linear layer; 0 leaves it out."""
    pixel_range: PixelRange = "centred"
    """What uint8 pixels become; see the image's."""
    separate_frames: bool = False
    """Whether each frame has its own tokens, instead of one token with both frames' neighbourhoods."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions on (row, column), or on (frame, row, column) of separate frames."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns, under a frame axis if the frames are separate."""
        return (2, self.height, self.width) if self.separate_frames else (self.height, self.width)

    @property
    def content_width(self) -> int:
        """Channels of the neighbourhoods or of the linear layer."""
        return self.project_to or 9 * self.num_channels * (1 if self.separate_frames else 2)


@dataclass(frozen=True)
class LabelInput(TokenGrid):
    """A class as input: one token, one-hot."""

    num_classes: int = 700
    """Classes."""

    @property
    def grid(self) -> tuple[int, ...]:
        """A single token."""
        return (1,)

    @property
    def content_width(self) -> int:
        """One channel a class."""
        return self.num_classes


AnyInput = ImageInput | AudioInput | SpectrogramInput | VideoInput | PointsInput | TextInput | FlowInput | LabelInput


@dataclass(frozen=True)
class InputsConfig:
    """The modalities that a network reads: those that are set."""

    audio: AudioInput | None = None
    """Raw audio."""
    flow: FlowInput | None = None
    """Two frames between which the motion is sought."""
    image: ImageInput | None = None
    """An image."""
    label: LabelInput | None = None
    """A class, for autoencoding."""
    points: PointsInput | None = None
    """A point cloud."""
    spectrogram: SpectrogramInput | None = None
    """A spectrogram."""
    text: TextInput | None = None
    """Bytes or tokens."""
    video: VideoInput | None = None
    """A clip."""

    def chosen(self) -> dict[str, AnyInput]:
        """Return the modalities that are set, sorted by name: the order in which their tokens are joined."""
        return {name: value for name, value in sorted(vars(self).items()) if value is not None}

    def problems(self) -> Problems:
        """Yield (key, sentence) of every modality's problems."""
        for name, modality in self.chosen().items():
            for key, sentence in modality.problems():
                yield f"{name}.{key}", sentence
