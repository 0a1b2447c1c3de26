"""What a run asks of each modality: the fixed shape of one sample's array, and how training varies it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

Problem = tuple[str, str]
"""Key relative to the part, and a sentence with what was expected, what came and what to do."""


def at_least(minimum: float, fields: dict[str, float]) -> Iterator[Problem]:
    """Yield a problem for each field below the minimum."""
    for key, value in fields.items():
        if value < minimum:
            yield key, f"must be at least {minimum}, got {value}"


@dataclass(frozen=True)
class ImageConfig:
    """Images as uint8 (height, width, 3)."""

    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""
    shift_pixels: int = 0
    """Training moves the image by up to this many pixels in each direction; what comes in at the border is 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return self.height, self.width, 3

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"height": self.height, "width": self.width})
        yield from at_least(0, {"shift_pixels": self.shift_pixels})


@dataclass(frozen=True)
class LogMelConfig:
    """Frames of a log-mel spectrogram, float32 (frames, num_bins), with mean 0 and variance 1 over a recording."""

    num_bins: int = 40
    """Bands, equally spaced in mel (HTK's formula) from 0 to half the sample rate."""
    window_seconds: float = 0.025
    """Length of the Hann window of a frame."""
    hop_seconds: float = 0.010
    """Time between the starts of two frames."""

    def window_samples(self, sample_rate: int) -> int:
        """Return the length of the window."""
        return max(2, round(self.window_seconds * sample_rate))

    def hop_samples(self, sample_rate: int) -> int:
        """Return the distance between the starts of two frames."""
        return max(1, round(self.hop_seconds * sample_rate))

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_bins": self.num_bins})
        for key in ("window_seconds", "hop_seconds"):
            if not 0 < getattr(self, key) < math.inf:
                yield key, f"must be above 0, got {getattr(self, key)}"


@dataclass(frozen=True)
class AudioConfig:
    """Mono audio as float32 (num_samples,) in [-1, 1], or as the frames of its log-mel spectrogram."""

    sample_rate: int = 8_000
    """Samples a second; recordings at another rate are resampled."""
    num_samples: int = 8_000
    """Length of the array: longer recordings are cut, shorter ones padded with zeros."""
    jitter_samples: int = 0
    """Training moves the recording by up to this many samples, within what there is of it."""
    log_mel: Optional[LogMelConfig] = None  # noqa: UP045 - OmegaConf reads Optional[X] best
    """Set to turn the waveform into frames of a log-mel spectrogram."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array: (num_samples,), or (frames, mel bins)."""
        if self.log_mel is None:
            return (self.num_samples,)
        return self.num_samples // self.log_mel.hop_samples(self.sample_rate), self.log_mel.num_bins

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"sample_rate": self.sample_rate, "num_samples": self.num_samples})
        yield from at_least(0, {"jitter_samples": self.jitter_samples})
        if self.log_mel is not None and self.sample_rate > 0:
            yield from ((f"log_mel.{key}", sentence) for key, sentence in self.log_mel.problems())
            longest = max(self.log_mel.window_seconds, self.log_mel.hop_seconds)
            if self.num_samples < longest * self.sample_rate:
                yield (
                    "num_samples",
                    f"{self.num_samples} samples are shorter than a window or hop of {longest} s; give more samples, "
                    "or shorten log_mel.window_seconds and log_mel.hop_seconds",
                )


@dataclass(frozen=True)
class VideoConfig:
    """Clips as uint8 (num_frames, height, width, 3)."""

    num_frames: int = 16
    """Frames of a clip, evenly spaced over the video."""
    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return self.num_frames, self.height, self.width, 3

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_frames": self.num_frames, "height": self.height, "width": self.width})


@dataclass(frozen=True)
class PointsConfig:
    """Point clouds as float32 (num_points, num_channels)."""

    num_points: int = 256
    """Points of a cloud: larger clouds are subsampled, smaller ones padded with zeros."""
    num_channels: int = 3
    """Values of a point: x, y, z."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return self.num_points, self.num_channels

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_points": self.num_points})
        if self.num_channels != 3:
            yield "num_channels", f"must be 3 (x, y, z), got {self.num_channels}"


@dataclass(frozen=True)
class TextConfig:
    """Text as int16 ids (num_bytes,): a byte of its UTF-8 plus 6, below that the special ids."""

    num_bytes: int = 64
    """Length of the array: longer texts are cut, shorter ones padded."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return (self.num_bytes,)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_bytes": self.num_bytes})


Section = ImageConfig | AudioConfig | VideoConfig | PointsConfig | TextConfig
