"""Audio-visual digits: MNIST's images paired by digit with the recordings of the Free Spoken Digit Dataset.

Both are taken as a zip archive or an unpacked folder: images as train|test/DIGIT/NAME.png, recordings as
recordings/DIGIT_SPEAKER_INDEX.wav. Splits are the authors': MNIST's by folder, the recordings' by index, 0 to 4 for
test. So no image and no recording is in both. Every image is one sample; recordings are used in turn, since there are
fewer.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_shards.build import Progress, build_table
from data_shards.manifest import Manifest
from data_shards.rows import Content, File, Row, Zipped

DIGITS = tuple("0123456789")
NUM_TEST_RECORDINGS = 5
"""Of each digit and speaker, those of the lowest index."""

_IMAGE = re.compile(r"(?:.*/)?(train|test)/(\d)/[^/]+\.png")
_RECORDING = re.compile(r"(?:.*/)?(\d)_[a-z]+_(\d+)\.wav")
Pools = dict[tuple[str, int], list[Content]]
"""Files by (split, digit), in the order of their names."""


def build(
    out: Path,
    *,
    images: Path,
    recordings: Path,
    seed: int = 0,
    num_jobs: int = 1,
    progress: Progress | None = None,
) -> Manifest:
    """Build the shards from the two archives or folders; ValueError says what one of them lacks."""
    return build_table(
        rows(images, recordings, seed=seed), out, label_names=DIGITS, seed=seed, num_jobs=num_jobs, progress=progress
    )


def rows(images: Path, recordings: Path, *, seed: int) -> list[Row]:
    """Return a row for every image, with a recording of the same digit and split."""
    pictures, sounds = _pictures(images), _sounds(recordings)
    pairs: list[Row] = []
    for (split, digit), of_digit in sorted(pictures.items()):
        spoken = sounds.get((split, digit))
        if not spoken:
            raise ValueError(
                f"{recordings}: no {split} recording of the digit {digit}; expected {digit}_SPEAKER_INDEX.wav"
            )
        rng = np.random.Generator(np.random.Philox(key=[seed, digit * 2 + (split == "test")]))
        # Whole shuffled rounds: every recording is used as often as any other, within one.
        num_rounds = -(-len(of_digit) // len(spoken))
        turns = np.concatenate([rng.permutation(len(spoken)) for _ in range(num_rounds)])
        pairs.extend(
            Row(line, (spoken[turn], picture), label=digit, split=split)
            for line, (picture, turn) in enumerate(zip(of_digit, turns, strict=False), start=len(pairs))
        )
    return pairs


def _pictures(images: Path) -> Pools:
    pools: Pools = defaultdict(list)
    for name, content in _files(images):
        if match := _IMAGE.fullmatch(name):
            pools[match[1], int(match[2])].append(content)
    for split in ("train", "test"):
        missing = [digit for digit in range(10) if not pools[split, digit]]
        if missing:
            raise ValueError(f"{images}: no image of the digit {missing[0]}; expected {split}/{missing[0]}/NAME.png")
    return pools


def _sounds(recordings: Path) -> Pools:
    pools: Pools = defaultdict(list)
    for name, content in _files(recordings):
        if match := _RECORDING.fullmatch(name):
            split = "test" if int(match[2]) < NUM_TEST_RECORDINGS else "train"
            pools[split, int(match[1])].append(content)
    return pools


def _files(archive: Path) -> Iterator[tuple[str, Content]]:
    """Yield (name, content) of every file of a zip archive or folder, by name."""
    if archive.is_dir():
        for path in sorted(archive.rglob("*.*")):
            yield path.relative_to(archive).as_posix(), File(str(path))
        return
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in sorted(file.infolist(), key=lambda entry: entry.filename):
                yield entry.filename, Zipped(str(archive), entry.filename, entry.file_size)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive}: neither a folder nor a zip archive that can be read ({error})") from error
