"""Sound: WAV, FLAC, MP3 and Ogg to float32 samples, or to the frames of a log-mel spectrogram."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, Self

from data_shards.files.problems import Problem, at_least, probabilities
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import LogMelConfig, SpecAugmentConfig

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best

LONG_SOUND, MOST_SAMPLES = 1 << 14, 1 << 19
"""Samples from which on a sound is long, and the most, where a section is fitted to samples."""


@dataclass(frozen=True)
class AudioConfig(Modality):
    """Sound as float32 (num_samples,) in [-1, 1], of several channels (num_samples, channels), or as log-mel frames."""

    modality: Literal["audio"] = "audio"
    sample_rate: int = 8_000
    """Samples a second; recordings at another rate are resampled."""
    num_samples: int = 8_000
    """Length of the array: longer recordings are cut, shorter ones padded with zeros."""
    num_channels: int = 1
    """Channels: 1 is the mean of those of a file; a mono file has the same in each; any other number is bad."""
    resample: Literal["sinc", "linear"] = "sinc"
    """sinc: a Kaiser-windowed low-pass filter, as scipy.signal.resample_poly; linear: fast, with aliases."""
    jitter_samples: int = 0
    """Training moves the recording by up to this many samples, within what there is of it."""
    log_mel: Optional[LogMelConfig] = None
    """Set to turn the waveform into frames of a log-mel spectrogram."""
    spec_augment: Optional[SpecAugmentConfig] = None
    """Set to train on spectrograms with hidden parts."""
    place: Optional[float] = None
    """Where a longer recording is read, from 0, its beginning, to 1, its end; left out, as data.clips says, or in the
    middle."""

    has_time: ClassVar[bool] = True
    usual: ClassVar[tuple[str, ...]] = ("wav", "flac", "mp3", "ogg")

    def at(self, place: float) -> Self:
        """Return the section that reads there, unless it says where itself."""
        return self if self.place is not None else replace(self, place=place)

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_samples,) or (num_samples, channels), or (frames, mel bins), of each bin the values of all channels."""
        if self.log_mel is None:
            return (self.num_samples,) if self.num_channels == 1 else (self.num_samples, self.num_channels)
        # A frame for each hop, the last windows padded: a size that depends on nothing but the section.
        num_frames = self.num_samples // self.log_mel.hop_samples(self.sample_rate)
        return num_frames, self.log_mel.num_bins * self.num_channels

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        # To the network a spectrogram is a recording, its frames the samples and its bins the channels.
        num_samples, num_channels = (*self.shape, 1)[:2]
        return {"num_samples": num_samples, "num_channels": num_channels}

    @property
    def too_long(self) -> str:
        """Return how a recording is longer than the part that is read."""
        return f"longer than {self.num_samples / self.sample_rate:g} s"

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the recording in this shape; in training varied at random."""
        from data_shards.modalities.transforms import audio

        array, length, is_cut = audio.fit(found[MAIN].content, self, rng)
        return Prepared(array, length, is_cut=is_cut)

    def file(self, values: "np.ndarray") -> tuple[str, bytes]:
        """Return a WAV file of 16 bits; the numbers of a spectrogram."""
        if self.log_mel is not None:
            return super().file(values)
        from data_shards.modalities.encoding import wav

        return "wav", wav(values, self.sample_rate)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode a recording and return the shape of its samples."""
        from data_shards.modalities.decoding.audio import recording

        return recording(content)[0].shape

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return the commonest rate, the number of samples at that rate, and the channels that all have."""
        from data_shards.modalities.decoding.audio import recording
        from data_shards.modalities.fitting import longest

        heard = [recording(content) for content in contents]
        rates = Counter(rate for _, rate in heard)
        # Of equally common rates the higher one, which loses nothing.
        rate = max(rates, key=lambda each: (rates[each], each))
        lengths = [len(samples) * rate // of for samples, of in heard]
        channels = {samples.shape[1] for samples, _ in heard}
        # A step that patches of many sizes divide; a short sound needs no such step.
        step = 1024 if max(lengths) >= LONG_SOUND else 16
        sizes = {"sample_rate": rate, "num_samples": longest(lengths, MOST_SAMPLES, step)}
        return sizes | ({"num_channels": max(channels)} if len(channels) == 1 and channels != {1} else {})

    @classmethod
    def lenient(cls) -> Self:
        """Return the section that takes any rate, without a long filter for each."""
        return cls(resample="linear")

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the spectrogram of the mean of the channels in decibels, seconds across and kHz up."""
        import numpy as np

        from data_shards.modalities.decoding.audio import audio

        samples, sample_rate = audio(found[MAIN].content)
        # Short sounds get short windows, or there would be a single column.
        window = max(16, min(256, len(samples) // 8))
        padded = np.pad(samples, (0, max(0, window - len(samples))))
        pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[:: max(1, window // 4)]
        power = np.abs(np.fft.rfft(pieces * np.hanning(window), axis=1)) ** 2
        # Silence has no power, and no logarithm.
        decibels = 10 * np.log10(power.T + 1e-10)
        extent = (0, len(padded) / sample_rate, 0, sample_rate / 2000)
        axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, vmin=decibels.max() - 60)
        axes.tick_params(labelsize=6)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from probabilities({"place": self.place or 0.0})
        yield from at_least(1, {name: getattr(self, name) for name in ("sample_rate", "num_samples", "num_channels")})
        yield from at_least(0, {"jitter_samples": self.jitter_samples})
        yield from nested(log_mel=self.log_mel, spec_augment=self.spec_augment)
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
