"""The configuration of transforms: one dataclass per transform, set in the section of an input to enable it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from data_shards.files.problems import Problem, at_least, probabilities

_MOST_POWER = 3
"""Of 2: eight times as large."""


def centre_crop_problems(part: float, fit: str) -> Iterator[Problem]:
    """Yield what is wrong with the part that is kept about the centre."""
    if not 0 < part <= 1:
        yield "centre_crop", f"must be above 0 and at most 1, got {part}"
    elif part < 1 and fit != "crop":
        yield "centre_crop", f"is for fit=crop, got {part} and fit={fit}; leave one of them out"


@dataclass(frozen=True)
class CropConfig:
    """A random part of the picture, the "Inception crop"."""

    # This area, the stretch and ten attempts are those of Perceiver's training code, and of most ImageNet recipes.
    min_area: float = 0.08
    """Smallest part of the picture's area."""
    max_area: float = 1.0
    """Largest part of the picture's area."""
    max_stretch: float = 4 / 3
    """Width by height is from 1 / max_stretch to max_stretch, before the part is resized to the section's shape."""
    attempts: int = 10
    """Draws of area and stretch that may fail to fit into the picture; then its centre is taken."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        if not 0 < self.min_area <= self.max_area <= 1:
            yield "min_area", f"must be above 0 and at most max_area ({self.max_area}), that at most 1"
        yield from at_least(1, {"max_stretch": self.max_stretch, "attempts": self.attempts})


@dataclass(frozen=True)
class RandAugmentConfig:
    """RandAugment with the 16 operations of Perceiver's training code (transforms/randaugment.py lists them)."""

    # Four layers of magnitude 5: Perceiver IO, appendix A.1.
    num_layers: int = 4
    """Operations applied one after the other, each drawn from all."""
    magnitude: float = 5.0
    """Strength of all of them, 10 being the strongest."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_layers": self.num_layers})
        yield from at_least(0, {"magnitude": self.magnitude})
        if self.magnitude > 10:
            yield "magnitude", f"must be at most 10, got {self.magnitude}"


@dataclass(frozen=True)
class ColourConfig:
    """Colour jitter: each factor is drawn uniformly from 1 - x to 1 + x, the same for all frames of a clip."""

    brightness: float = 0.4
    """x of the factor on all values."""
    contrast: float = 0.4
    """x of the factor on the distance from the mean grey."""
    saturation: float = 0.4
    """x of the factor on the distance from the pixel's own grey."""
    hue: float = 0.0
    """Parts of the circle of colours, up to a half, by which the hue is turned, forwards or backwards."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from probabilities(
            {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        )
        if not 0 <= self.hue <= 0.5:
            yield "hue", f"must be from 0 to 0.5, half of the circle, got {self.hue}"


def channel_problems(
    num_channels: int, dtype: str, colour: ColourConfig | None, randaugment: RandAugmentConfig | None
) -> Iterator[Problem]:
    """Yield the transforms that have a meaning for red, green and blue alone."""
    found = f"num_channels={num_channels} and {'bytes' if dtype == 'uint8' else 'floating point'}"
    if randaugment is not None and (num_channels, dtype) != (3, "uint8"):
        yield "randaugment", f"is for red, green and blue in bytes, got {found}; use crop, flip and colour in its place"
    for key in ("saturation", "hue"):
        if colour is not None and getattr(colour, key) and num_channels != 3:
            yield f"colour.{key}", f"is for red, green and blue, got num_channels={num_channels}; set it to 0"


@dataclass(frozen=True)
class ScaleConfig:
    """Pairs of frames are made larger or smaller, and their motion with them, before a part is cut out."""

    # RAFT's augmentation (arXiv 2003.12039): the powers of 2, and how often.
    probability: float = 0.8
    """The probability that a pair is resized; the others keep their size."""
    min_power: float = -0.2
    """The least power of 2 by which both sides grow. No side becomes shorter than the part that is cut from it."""
    max_power: float = 0.5
    """The greatest power of 2."""
    stretch_probability: float = 0.8
    """The probability that each side also grows by a power of its own."""
    max_stretch_power: float = 0.2
    """The greatest of these powers; the least is its negative."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from probabilities({"probability": self.probability, "stretch_probability": self.stretch_probability})
        if not -_MOST_POWER <= self.min_power <= self.max_power <= _MOST_POWER:
            yield "min_power", f"must be at most max_power, both from -{_MOST_POWER} to {_MOST_POWER}"
        if not 0 <= self.max_stretch_power <= _MOST_POWER:
            yield "max_stretch_power", f"must be from 0 to {_MOST_POWER}, got {self.max_stretch_power}"


@dataclass(frozen=True)
class EraseConfig:
    """Rectangles of the second frame get its mean colour, as if something had covered them."""

    # RAFT's augmentation.
    probability: float = 0.5
    """The probability that a pair has such rectangles, one or two."""
    min_side: int = 50
    """Least pixels of a side; at the border it may be cut."""
    max_side: int = 100
    """Most pixels of a side."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from probabilities({"probability": self.probability})
        if not 1 <= self.min_side <= self.max_side:
            yield "min_side", f"must be at least 1 and at most max_side ({self.max_side}), got {self.min_side}"


@dataclass(frozen=True)
class SpecAugmentConfig:
    """SpecAugment: bands and stretches of time of a spectrogram are set to its mean."""

    num_time_masks: int = 2
    """Stretches of time that are hidden."""
    max_time_frames: int = 20
    """Each is 0 to this many frames long."""
    num_bin_masks: int = 2
    """Bands that are hidden."""
    max_bins: int = 8
    """Each is 0 to this many mel bins wide."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        names = ("num_time_masks", "max_time_frames", "num_bin_masks", "max_bins")
        yield from at_least(0, {name: getattr(self, name) for name in names})


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
class MaskingConfig:
    """Whole words are hidden and become the target; in evaluation always the same words of a text."""

    # Perceiver IO, appendix F.3.
    probability: float = 0.15
    """The probability that a word, a run of bytes without white space, is hidden with all its tokens. At least one is
    hidden."""
    by_mark: bool = False
    """Whether of a text in which the mask token stands, as [MASK], nothing else is hidden. `perceiver predict` sets it;
    of bytes each mark stands for one byte."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from probabilities({"probability": self.probability})


@dataclass(frozen=True)
class ClipsConfig:
    """Sound and video of a sample are cut at the same time: in training anywhere, the same place for all of them."""

    # The first paper averages 16 overlapping clips of AudioSet (section 4.2).
    num_test: int = 1
    """Clips of a sample whose answers evaluation averages, spread evenly from the beginning to the end; 1 takes the
    middle."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"num_test": self.num_test})

    def place(self, number: int) -> float | None:
        """Return where the clip of an evaluation lies, from 0, the beginning, to 1, the end; None for the middle."""
        return number / (self.num_test - 1) if self.num_test > 1 else None


@dataclass(frozen=True)
class MixupConfig:
    """Pairs of images become one, and so do their labels: a pair is either blended or has a rectangle exchanged."""

    # Half of the pairs by mixup with alpha 0.2, half by CutMix: Perceiver IO, appendix A.1, and its training code.
    mixup_alpha: float = 0.2
    """Mixup blends with a share drawn from Beta(alpha, alpha)."""
    cutmix_alpha: float = 1.0
    """CutMix pastes a rectangle whose share of the area is drawn from Beta(alpha, alpha)."""
    cutmix_probability: float = 0.5
    """The probability that a pair is mixed by CutMix instead of mixup."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        for key in ("mixup_alpha", "cutmix_alpha"):
            if not 0 < getattr(self, key) < math.inf:
                yield key, f"must be above 0, got {getattr(self, key)}"
        yield from probabilities({"cutmix_probability": self.cutmix_probability})
