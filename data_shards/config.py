"""What a run asks of its data: the modalities with their fixed shapes, the sample order, and the loader's limits.

A modality is used when its section is set; every batch then has that array, zeros where a sample lacks it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
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

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"height": self.height, "width": self.width})
        yield from at_least(0, {"shift_pixels": self.shift_pixels})


@dataclass(frozen=True)
class AudioConfig:
    """Mono audio as float32 (num_samples,) in [-1, 1]."""

    sample_rate: int = 8_000
    """Samples a second; recordings at another rate are resampled."""
    num_samples: int = 8_000
    """Length of the array: longer recordings are cut, shorter ones padded with zeros."""
    jitter_samples: int = 0
    """Training moves the recording by up to this many samples, within what there is of it."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"sample_rate": self.sample_rate, "num_samples": self.num_samples})
        yield from at_least(0, {"jitter_samples": self.jitter_samples})


@dataclass(frozen=True)
class VideoConfig:
    """Clips as uint8 (num_frames, height, width, 3)."""

    num_frames: int = 16
    """Frames of a clip, evenly spaced over the video."""
    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""

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

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_bytes": self.num_bytes})


@dataclass(frozen=True)
class DataConfig:
    """The data of a run."""

    shards: str = ""
    """Folder that `perceiver data build` or `perceiver data index` wrote, with its train and test splits."""
    image: Optional[ImageConfig] = None  # noqa: UP045 - OmegaConf reads Optional[X] best
    """Set to use images."""
    audio: Optional[AudioConfig] = None  # noqa: UP045
    """Set to use audio."""
    video: Optional[VideoConfig] = None  # noqa: UP045
    """Set to use video."""
    points: Optional[PointsConfig] = None  # noqa: UP045
    """Set to use point clouds."""
    text: Optional[TextConfig] = None  # noqa: UP045
    """Set to use text."""
    modality_dropout: dict[str, float] = field(default_factory=dict)
    """Probability a modality that training hides it from a sample; at least one modality of a sample always stays."""
    lanes: int = 8
    """Streams of shards that give equal parts of every global batch; must divide it. Part of the order."""
    window: int = 1024
    """Samples of a lane that are shuffled among each other: none moves further than half of it. Part of the order."""
    num_threads: int = 2
    """Threads that decode, each a whole batch."""
    prefetch_batches: int = 4
    """Batches made ahead of the one that is asked for, at most."""
    prefetch_mib: int = 1024
    """Memory that those batches may take together, at most."""
    live_mib: int = 2048
    """Memory for shards that were read and still have samples to give."""

    def modalities(self) -> dict[str, "Section"]:
        """Return the sections that are set, by modality, in alphabetical order."""
        sections = {
            "audio": self.audio,
            "image": self.image,
            "points": self.points,
            "text": self.text,
            "video": self.video,
        }
        return {name: section for name, section in sections.items() if section is not None}

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the data's configuration."""
        if not self.modalities():
            yield "image", "no modality is set; set at least one of audio, image, points, text, video"
        for name, section in self.modalities().items():
            yield from ((f"{name}.{key}", sentence) for key, sentence in section.problems())
        for name, probability in self.modality_dropout.items():
            if name not in self.modalities():
                yield (
                    f"modality_dropout.{name}",
                    f"{name!r} is not a modality of this run; set data.{name} or leave it out",
                )
            if not 0 <= probability <= 1:
                yield f"modality_dropout.{name}", f"must be a probability from 0 to 1, got {probability}"
        positive = ("lanes", "window", "num_threads", "prefetch_batches", "prefetch_mib", "live_mib")
        yield from at_least(1, {name: getattr(self, name) for name in positive})


Section = ImageConfig | AudioConfig | VideoConfig | PointsConfig | TextConfig
