"""The inputs of a network, one dataclass a modality (those of pixels: config_pixels); what follows is a property.

Every modality becomes a grid of tokens: `grid` is its shape, `num_tokens` the product, `token_width` the channels.
"""

from dataclasses import dataclass, field
from math import inf

from model.config.grids import PositionsConfig, Problems, TokenGrid, cuts
from model.config.pixels import FlowInput, ImageInput, VideoInput


@dataclass(frozen=True)
class AudioInput(TokenGrid):
    """Mono samples, or frames of a spectrogram that are one token each, cut into patches along time."""

    num_samples: int = 30_720
    """Samples (or frames) of a recording."""
    num_channels: int = 1
    """Values of a sample: 1 for raw sound, the bins of a spectrogram's frame."""
    patch: int = 16
    """Samples that make one token."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions in time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples, and channels if there are several."""
        return (self.num_samples,) if self.num_channels == 1 else (self.num_samples, self.num_channels)

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
        """Values of a patch."""
        return self.patch * self.num_channels

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
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
    def shape(self) -> tuple[int, ...]:
        """Frames and bins."""
        return (self.num_frames, self.num_bins)

    @property
    def grid(self) -> tuple[int, ...]:
        """Frames and bins."""
        return (self.num_frames, self.num_bins)

    @property
    def content_width(self) -> int:
        """One value a cell."""
        return 1


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
    def shape(self) -> tuple[int, ...]:
        """Points and coordinates."""
        return (self.num_points, self.num_channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """The points."""
        return (self.num_points,)

    @property
    def content_width(self) -> int:
        """Coordinates, sines and cosines."""
        return self.num_channels * (2 * self.num_bands + 1)

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        if not 1 <= self.max_frequency < inf:
            yield "max_frequency", f"must be at least 1, and finite, got {self.max_frequency}"


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
    def shape(self) -> tuple[int, ...]:
        """Places, of which a batch may have fewer."""
        return (self.max_tokens,)

    @property
    def grid(self) -> tuple[int, ...]:
        """Places in the text."""
        return (self.max_tokens,)

    @property
    def content_width(self) -> int:
        """Channels of the embedding."""
        return self.embedding_width


@dataclass(frozen=True)
class LabelInput(TokenGrid):
    """A class as input: one token, one-hot."""

    num_classes: int = 700
    """Classes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """A number."""
        return ()

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
