"""What a run asks of each modality: the fixed shape of one sample's array, and how training varies it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Optional

from data_shards.files.problems import Problem, at_least
from data_shards.modalities.transform_config import (
    ColourConfig,
    CropConfig,
    LogMelConfig,
    MaskingConfig,
    RandAugmentConfig,
    SpecAugmentConfig,
)

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best


def _nested(**parts: "Part | None") -> Iterator[Problem]:
    """Yield the problems of those optional parts that are set, under their names."""
    for name, part in parts.items():
        if part is not None:
            yield from ((f"{name}.{key}", sentence) for key, sentence in part.problems())


def _centre_crop(part: float, fit: str) -> Iterator[Problem]:
    """Yield what is wrong with the part that is kept about the centre."""
    if not 0 < part <= 1:
        yield "centre_crop", f"must be above 0 and at most 1, got {part}"
    elif part < 1 and fit != "crop":
        yield "centre_crop", f"is for fit=crop, got {part} and fit={fit}; leave one of them out"


@dataclass(frozen=True)
class ImageConfig:
    """Images as uint8 (height, width, 3)."""

    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""
    resize: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    """Pillow's filter of that name, with antialiasing where the image shrinks."""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """How other aspect ratios come to this shape, in training too. crop: the largest part of this one about the centre,
    so the ends of a wide image are never read. stretch: all of it, distorted. pad: all of it, black beside it."""
    centre_crop: float = 1.0
    """Part of the shorter side that fit=crop keeps where nothing is random; 0.875 is usual for ImageNet."""
    crop: Optional[CropConfig] = None
    """Set to train on random parts of the image."""
    flip: bool = False
    """Training mirrors every second image."""
    randaugment: Optional[RandAugmentConfig] = None
    """Set to train on images with random operations, after the crop and before the resizing."""
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
        yield from _centre_crop(self.centre_crop, self.fit)
        yield from _nested(crop=self.crop, randaugment=self.randaugment)


@dataclass(frozen=True)
class AudioConfig:
    """Mono audio as float32 (num_samples,) in [-1, 1], or as the frames of its log-mel spectrogram."""

    sample_rate: int = 8_000
    """Samples a second; recordings at another rate are resampled."""
    num_samples: int = 8_000
    """Length of the array: longer recordings are cut, shorter ones padded with zeros."""
    resample: Literal["sinc", "linear"] = "sinc"
    """sinc: a Kaiser-windowed low-pass filter, as scipy.signal.resample_poly; linear: fast, with aliases."""
    jitter_samples: int = 0
    """Training moves the recording by up to this many samples, within what there is of it."""
    log_mel: Optional[LogMelConfig] = None
    """Set to turn the waveform into frames of a log-mel spectrogram."""
    spec_augment: Optional[SpecAugmentConfig] = None
    """Set to train on spectrograms with hidden parts."""

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
        yield from _nested(log_mel=self.log_mel, spec_augment=self.spec_augment)
        if self.log_mel is None:
            if self.spec_augment is not None:
                yield "spec_augment", "hides parts of a spectrogram; set log_mel as well, or leave it out"
            return
        longest = max(self.log_mel.window_seconds, self.log_mel.hop_seconds)
        if self.num_samples < longest * self.sample_rate:
            yield (
                "num_samples",
                f"{self.num_samples} samples are shorter than a window or hop of {longest} s; give more samples, "
                "or shorten log_mel.window_seconds and log_mel.hop_seconds",
            )


@dataclass(frozen=True)
class FlowConfig:
    """Pairs of frames as uint8 (2, height, width, 3), and the motion between them."""

    height: int = 368
    """Rows of pixels that training cuts from a pair, anywhere; nothing is resized, since motion is in pixels."""
    width: int = 496
    """Columns of pixels that training cuts from a pair."""
    flip: bool = False
    """Training mirrors every second pair."""
    test_height: int = 0
    """Rows that evaluation cuts about the centre, judged in overlapping tiles of height x width; 0: height."""
    test_width: int = 0
    """Columns that evaluation cuts about the centre; 0: width."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return 2, self.height, self.width, 3

    def of_evaluation(self) -> "FlowConfig":
        """Return what evaluation reads."""
        return replace(self, height=self.test_height or self.height, width=self.test_width or self.width)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"height": self.height, "width": self.width})
        for key, side in (("test_height", self.height), ("test_width", self.width)):
            if getattr(self, key) and getattr(self, key) < side:
                yield key, f"must be at least {side}, as in training, or 0, got {getattr(self, key)}"


@dataclass(frozen=True)
class VideoConfig:
    """Clips as uint8 (num_frames, height, width, 3)."""

    num_frames: int = 16
    """Frames of a clip."""
    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""
    frame_step: int = 0
    """0 spreads the frames over the video; n takes every nth frame, from the middle, in training from anywhere."""
    resize: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    """Pillow's filter of that name, with antialiasing where the frame shrinks."""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """How other aspect ratios come to this shape, in training too. crop: the largest part of this one about the centre,
    so the ends of a wide frame are never read. stretch: all of it, distorted. pad: all of it, black beside it."""
    centre_crop: float = 1.0
    """Part of the shorter side that fit=crop keeps where nothing is random."""
    crop: Optional[CropConfig] = None
    """Set to train on random parts of the frames, the same in all frames of a clip."""
    flip: bool = False
    """Training mirrors every second clip."""
    colour: Optional[ColourConfig] = None
    """Set to train on clips with random brightness, contrast and saturation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return self.num_frames, self.height, self.width, 3

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_frames": self.num_frames, "height": self.height, "width": self.width})
        yield from at_least(0, {"frame_step": self.frame_step})
        yield from _centre_crop(self.centre_crop, self.fit)
        yield from _nested(crop=self.crop, colour=self.colour)


@dataclass(frozen=True)
class PointsConfig:
    """Point clouds as float32 (num_points, num_channels)."""

    num_points: int = 256
    """Points of a cloud: larger clouds are subsampled, smaller ones padded with zeros; meshes are sampled by area."""
    num_channels: int = 3
    """Values of a point: x, y, z."""
    normalize: Literal["none", "centre", "unit_cube"] = "none"
    """centre moves the mean to 0; unit_cube also scales, so that the largest absolute coordinate is 1."""
    scale_jitter: float = 0.0
    """Training multiplies each point by a factor of 1 - x to 1 + x (0.01 in the paper), before it normalizes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return self.num_points, self.num_channels

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_points": self.num_points})
        if not 0 <= self.scale_jitter < 1:
            yield "scale_jitter", f"must be from 0 to less than 1, got {self.scale_jitter}"
        if self.num_channels != 3:
            yield "num_channels", f"must be 3 (x, y, z), got {self.num_channels}"


@dataclass(frozen=True)
class TextConfig:
    """Text as int16 ids (num_bytes,): a byte of its UTF-8 plus 6, below that the special ids."""

    num_bytes: int = 64
    """Length of the array: longer texts are cut, shorter ones padded."""
    masking: Optional[MaskingConfig] = None
    """Set to hide words, which the network then learns to fill in."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return (self.num_bytes,)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_bytes": self.num_bytes})
        yield from _nested(masking=self.masking)


Part = CropConfig | RandAugmentConfig | ColourConfig | SpecAugmentConfig | LogMelConfig | MaskingConfig
Section = ImageConfig | AudioConfig | FlowConfig | VideoConfig | PointsConfig | TextConfig
