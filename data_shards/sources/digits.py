"""The built-in digits: scikit-learn's 1 797 handwritten digits, each in five modalities.

An image (PNG), the digit's tone on a telephone keypad under noise (WAV), a point cloud raised from the strokes (npy), a
clip of the digit drifting over a canvas (MP4), and its name in words. Everything is drawn from (seed, number of the
digit), so each member is made where it is needed, and is the same wherever it is made.
"""

import io
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.building.builder import Progress, build_table
from data_shards.building.raw_sample import Row
from data_shards.format.manifest import Manifest

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Ten shards: enough for lanes, and for tests of an order over several shards.
SAMPLES_PER_SHARD = 180
# A telephone's: no tone of the keypad is above 1 477 Hz.
SAMPLE_RATE = 8_000
TONE_SAMPLES = 2_000
NUM_POINTS = 256
CANVAS_PIXELS = 32
"""Side of a frame of the clip."""
NUM_FRAMES = 8
DIGIT_PIXELS = 24
"""Side of the digit in the clip; the originals, and so the images, have 8."""
FRAMES_PER_SECOND = 8

KEYPAD_ROWS = (941, 697, 697, 697, 770, 770, 770, 852, 852, 852)
"""Hz of the lower tone of each digit (ITU-T Q.23)."""
KEYPAD_COLUMNS = (1336, 1209, 1336, 1477, 1209, 1336, 1477, 1209, 1336, 1477)
"""Hz of the higher tone."""


def build(out: Path, *, seed: int = 0, num_jobs: int = 1, progress: Progress | None = None) -> Manifest:
    """Build the shards of the five-modality digits, 80 % of each digit for training."""
    return build_table(
        rows(seed=seed),
        out,
        label_names=NAMES,
        seed=seed,
        samples_per_shard=SAMPLES_PER_SHARD,
        num_jobs=num_jobs,
        progress=progress,
    )


def rows(*, seed: int) -> list[Row]:
    """Return a row a digit; a stratified fifth of them, drawn from the seed, is the test split."""
    labels = _handwriting()[1]
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        places = np.flatnonzero(labels == digit)
        is_test[_generator(seed, digit, "split").permutation(places)[: round(len(places) / 5)]] = True
    return [
        Row(
            line=number,
            # Sorted: the order of that table must not decide the bytes of a shard.
            members=tuple(Drawn(number, seed, extension) for extension in sorted(_DRAWINGS)),
            label=int(label),
            split="test" if test else "train",
        )
        for number, (label, test) in enumerate(zip(labels, is_test, strict=True))
    ]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One member of one digit, drawn when it is read."""

    number: int
    """The index of the digit in scikit-learn's data."""
    seed: int
    extension: str

    @property
    def origin(self) -> str:
        """Which digit it is."""
        return f"digit {self.number}"

    @property
    def num_bytes(self) -> int:
        """Return 0: the size is not known in advance, and about the same for all samples."""
        return 0

    def read(self) -> bytes:
        """Return the encoded member."""
        strokes, labels = _handwriting()
        rng = _generator(self.seed, self.number, self.extension)
        return _DRAWINGS[self.extension](strokes[self.number], int(labels[self.number]), rng)


@lru_cache(maxsize=1)
def _handwriting() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return strokes (1797, 8, 8) in [0, 1] and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError("the built-in digits need scikit-learn: pip install scikit-learn") from error
    bunch = load_digits()
    # scikit-learn's pixels count from 0 to 16.
    return bunch.images / 16, bunch.target


def _generator(seed: int, number: int, purpose: str) -> np.random.Generator:
    # A stream of its own for each member: changing how one is drawn leaves the others as they were.
    return np.random.default_rng([seed, number, *purpose.encode()])


def _image(strokes: NDArray[np.float64], _label: int, _rng: np.random.Generator) -> bytes:
    encoded = io.BytesIO()
    _picture(strokes).save(encoded, "PNG")
    return encoded.getvalue()


def _picture(strokes: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.round(strokes * 255).astype(np.uint8))


def _tone(_strokes: NDArray[np.float64], label: int, rng: np.random.Generator) -> bytes:
    """Two sines of the keypad at random phase and loudness, under noise."""
    seconds = np.arange(TONE_SAMPLES) / SAMPLE_RATE
    phases = rng.uniform(0, 2 * np.pi, 2)
    lower = np.sin(2 * np.pi * KEYPAD_ROWS[label] * seconds + phases[0])
    higher = np.sin(2 * np.pi * KEYPAD_COLUMNS[label] * seconds + phases[1])
    sound = rng.uniform(0.1, 0.3) * (lower + higher) + rng.normal(0, 0.1, TONE_SAMPLES)
    encoded = io.BytesIO()
    with wave.open(encoded, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(sound.clip(-1, 1) * 32_767).astype("<i2").tobytes())
    return encoded.getvalue()


def _cloud(strokes: NDArray[np.float64], _label: int, rng: np.random.Generator) -> bytes:
    """Points on the strokes, denser and reaching higher where the ink is darker."""
    pixels = rng.choice(64, NUM_POINTS, p=strokes.ravel() / strokes.sum())
    row, column = np.divmod(pixels, 8)
    # Eight columns, and eight rows, become -1 to 1.
    across = (column + rng.random(NUM_POINTS)) / 4 - 1
    up = 1 - (row + rng.random(NUM_POINTS)) / 4
    height = strokes.ravel()[pixels] * rng.random(NUM_POINTS) / 2
    encoded = io.BytesIO()
    np.save(encoded, np.stack([across, up, height], axis=1).astype(np.float32))
    return encoded.getvalue()


def _clip(strokes: NDArray[np.float64], _label: int, rng: np.random.Generator) -> bytes:
    """The digit on a straight way over a dark canvas, within its borders."""
    digit = np.asarray(_picture(strokes).resize((DIGIT_PIXELS, DIGIT_PIXELS), Image.Resampling.BICUBIC))
    start, end = rng.uniform(0, CANVAS_PIXELS - DIGIT_PIXELS, (2, 2))
    frames = np.zeros((NUM_FRAMES, CANVAS_PIXELS, CANVAS_PIXELS), np.uint8)
    for frame, part in zip(frames, np.linspace(0, 1, NUM_FRAMES), strict=True):
        top, left = np.round(start + part * (end - start)).astype(int)
        frame[top : top + DIGIT_PIXELS, left : left + DIGIT_PIXELS] = digit
    return _mp4(frames)


def _mp4(frames: NDArray[np.uint8]) -> bytes:
    """Encode grey frames as MPEG-4 part 2, which every build of FFmpeg has; one thread and no times, so equal bytes."""
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mp4") as container:
        # Otherwise the file names the version of FFmpeg that wrote it, and its shard has another hash on another
        # machine.
        container.flags |= av.container.Flags.bitexact.value  # type: ignore[operator]  # the stub says Flags
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:]
        # What every player shows; MPEG-4 part 2 has no other.
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 400_000
        stream.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for number, grey in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, axis=2), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return encoded.getvalue()


def _name(_strokes: NDArray[np.float64], label: int, _rng: np.random.Generator) -> bytes:
    return NAMES[label].encode()


_DRAWINGS: Mapping[str, Callable[[NDArray[np.float64], int, np.random.Generator], bytes]] = MappingProxyType(
    {"png": _image, "wav": _tone, "npy": _cloud, "mp4": _clip, "txt": _name}
)
