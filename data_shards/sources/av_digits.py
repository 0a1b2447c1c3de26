"""Audio-visual digits: MNIST's images paired by digit with the recordings of the Free Spoken Digit Dataset.

Both are taken as a zip archive or an unpacked folder: images as train|test/DIGIT/NAME.png, recordings as
recordings/DIGIT_SPEAKER_INDEX.wav. Splits are the authors': MNIST's by folder, the recordings' by index, 0 to 4 for
test. So no image and no recording is in both. Every image is one sample; recordings are used in turn, since there are
fewer.
"""

import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import numpy as np

from data_shards.building.builder import BuildOptions, Tell, build_table
from data_shards.building.raw_sample import Content, File, Row, Zipped
from data_shards.building.splits import TEST, TRAIN
from data_shards.format.manifest import Manifest
from data_shards.sources.parsing.folder_files import HIDDEN, is_hidden, passed_over, suffix_of, walk

DIGITS = tuple("0123456789")
NUM_TEST_RECORDINGS = 5
"""The number of test recordings per digit and speaker: those with the lowest index."""

_IMAGE = re.compile(r"(?:.*/)?(train|test)/(\d)/[^/]+\.png")
_RECORDING = re.compile(r"(?:.*/)?(\d)_[a-z]+_(\d+)\.wav")
Pools = dict[tuple[str, int], list[Content]]
"""Files by (split, digit), in the order of their names."""


def build(out: Path, *, images: Path, recordings: Path, **options: Unpack[BuildOptions]) -> Manifest:
    """Build the shards from the two archives or folders; ValueError says what one of them lacks."""
    paired = rows(images, recordings, seed=options.get("seed", 0), tell=options.get("tell"))
    return build_table(paired, out, label_names=DIGITS, **options)


def rows(images: Path, recordings: Path, *, seed: int, tell: Tell | None = None) -> list[Row]:
    """Return a row for every image, with a recording of the same digit and split."""
    pictures, sounds = _pictures(images, tell), _sounds(recordings, tell)
    pairs: list[Row] = []
    for (split, digit), of_digit in sorted(pictures.items()):
        spoken = sounds.get((split, digit))
        if not spoken:
            raise ValueError(
                f"{recordings}: no {split} recording of the digit {digit}; expected {digit}_SPEAKER_INDEX.wav"
            )
        # A stream for each digit and split: more images of one digit leave the pairs of all others as they were.
        rng = np.random.Generator(np.random.Philox(key=[seed, digit * 2 + (split == TEST)]))
        # Whole shuffled rounds: every recording is used as often as any other, within one.
        num_rounds = -(-len(of_digit) // len(spoken))
        turns = np.concatenate([rng.permutation(len(spoken)) for _ in range(num_rounds)])
        pairs.extend(
            Row(line, (spoken[turn], picture), label=digit, split=split)
            # Whole rounds may be more than there are images: the rest of the last one is not used.
            for line, (picture, turn) in enumerate(zip(of_digit, turns, strict=False), start=len(pairs))
        )
    return pairs


def _pictures(images: Path, tell: Tell | None) -> Pools:
    pools: Pools = defaultdict(list)
    for match, content in _matching(images, _IMAGE, "train|test/DIGIT/NAME.png", tell):
        pools[match[1], int(match[2])].append(content)
    for split in (TRAIN, TEST):
        missing = [digit for digit in range(10) if not pools[split, digit]]
        if missing:
            raise ValueError(f"{images}: no image of the digit {missing[0]}; expected {split}/{missing[0]}/NAME.png")
    return pools


def _sounds(recordings: Path, tell: Tell | None) -> Pools:
    pools: Pools = defaultdict(list)
    for match, content in _matching(recordings, _RECORDING, "DIGIT_SPEAKER_INDEX.wav", tell):
        split = TEST if int(match[2]) < NUM_TEST_RECORDINGS else TRAIN
        pools[split, int(match[1])].append(content)
    return pools


def _matching(
    archive: Path, pattern: re.Pattern[str], wanted: str, tell: Tell | None
) -> Iterator[tuple[re.Match[str], Content]]:
    """Yield the files with such a name; report the number of others."""
    passed: Counter[str] = Counter()
    for name, content in _files(archive):
        if match := pattern.fullmatch(name):
            yield match, content
        elif not name.endswith("/"):
            passed[HIDDEN if is_hidden(name.split("/")) else suffix_of(name)] += 1
    if tell and passed:
        tell(f"{archive}: {passed_over(passed, wanted)}")


def _files(archive: Path) -> Iterator[tuple[str, Content]]:
    """Yield (name, content) of every file of a zip archive or folder, by name."""
    if archive.is_dir():
        for parent, names, files in walk(archive):
            yield from (("/".join((*names, name)), File(str(Path(parent, name)))) for name in files)
        return
    try:
        with zipfile.ZipFile(archive) as file:
            # A zip lists its files in the order in which they were added, and the pairs must not depend on it.
            for entry in sorted(file.infolist(), key=lambda entry: entry.filename):
                yield entry.filename, Zipped(str(archive), entry.filename, entry.file_size)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive}: neither a folder nor a zip archive that can be read ({error})") from error
