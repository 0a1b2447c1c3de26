"""Folders of tars in every state in which people have them: `data verify` and training must agree on each sample.

    python tests/data_shards/agreement.py --count 5000 --seed 0

Each folder is adopted, verified, and read by the real loaders, as a training and as an evaluation of each split. What
verify calls bad must be what the loaders list, sample for sample. A folder that is refused must be refused in words.
"""

import argparse
import io
import json
import random
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_shards.building import adoption
from data_shards.building.inspection import verification
from data_shards.config import DataConfig
from data_shards.format.annotations import OWN, Records
from data_shards.format.manifest import Manifest
from data_shards.loading import streams
from data_shards.loading.dataset import inputs_in
from data_shards.loading.loader.loader import Loader
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.catalogue import inputs_of
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.storage.local_folder import LocalFolder

SPLITS = ("train", "train", "test", "val", "Train", "TEST", "a b", "métrique", "0", "\u202fx", ".Trash-1000")
KEYS = (
    "{n:04d}", "{n:04d}", "a b{n}", "clip_{n}", "é{n}", "\u00a0{n}", "d/{n}", "{n}[/b]$", "{n}\u3000",
    "\U0001f469\u200d\U0001f469{n}", "{n:070d}",
)  # fmt: skip
LABELS = (
    b"0", b"1", b"1", b"2", b" 1\n", b"-1", b"007", b"", b"cat", b"1.0", b"+1", b"1_0", b"-2", b"1e3", b"\xff",
    b"9" * 400,
)  # fmt: skip
RECORDS = (
    b"{}", b'{"labels": [0, 1]}', b'{"labels": [2]}', b'{"labels": 1}', b'{"labels": "outdoor"}', b'{"labels": ["0"]}',
    b'{"labels": [1e999]}', b'{"labels": [1.5]}', b'{"labels": [true]}', b'{"labels": [-1]}', b'{"labels": null}',
    b'{"labels": [0, 0]}', b'{"labels": {"a": 1}}', b'{"labels": [[0]]}', b'{"labels": []}', b"[" * 100_000,
    b'{"weight": 2}', b'{"weight": "1.2 kg"}', b'{"weight": 1e300}', b'{"weight": NaN}', b'{"weight": -1}',
    b'{"weight": ' + b"9" * 400 + b"}", b'{"weight": 0}', b'{"weight": true}', b"", b"null", b"[1]", b"\xff\xfe", b"{",
    b'{"named_labels": {"writer": 1}}', b'{"named_labels": {"writer": "ann"}}', b'{"named_labels": [1]}',
    b'{"caption": "labels", "labels": [1], "weight": 3}', b'{"named_labels": {"writer": null, "day": 3}, "labels": 0}',
)  # fmt: skip
NAMES = ("{key}.{suffix}",) * 12 + (
    "{key}.x.{suffix}", "{key}.{SUFFIX}", "{key}", ".{key}.{suffix}", "__{key}__.{suffix}", "./{key}.{suffix}",
    "{key}.{suffix}.bak", "{key}..{suffix}",
)  # fmt: skip
SHAPES = (("png", "cls"), ("jpg", "cls", "json"), ("txt",), ("txt", "json"), ("png", "txt", "cls"), ("npy", "cls"),
          ("wav", "txt"), ("first.png", "second.png", "flo"), ("jpg", "png", "cls"), ("png", "json"))  # fmt: skip
SECTIONS: dict[str, Any] = {
    "image": ImageConfig(height=4, width=4),
    "text": TextConfig(num_bytes=4),
    "points": PointsConfig(num_points=4),
    "audio": AudioConfig(num_samples=64, resample="linear"),
    "flow": FlowConfig(height=1, width=1),
}


def _encoded(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def contents() -> dict[str, list[bytes]]:
    """Return contents of each suffix, most of them good."""
    pixels = Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))
    png, jpg = (_encoded(lambda file, form=form: pixels.save(file, form)) for form in ("PNG", "JPEG"))
    npy = _encoded(lambda file: np.save(file, np.arange(12, dtype=np.float32).reshape(4, 3)))
    body = b"WAVEfmt " + b"\x10\0\0\0\1\0\1\0" + b"\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0" + b"data\x40\0\0\0" + bytes(64)
    wav = b"RIFF" + len(body).to_bytes(4, "little") + body
    flo = b"PIEH" + np.array([8, 8], "<i4").tobytes() + np.zeros((8, 8, 2), "<f4").tobytes()
    deep = b"\x93NUMPY\x01\x00\xf6\x23{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 9_000 + b"1,)}"
    good = {"png": png, "jpg": jpg, "npy": npy, "wav": wav, "flo": flo, "txt": "naïve".encode()}
    good |= {"first.png": png, "second.png": png}
    made = {suffix: [data] * 12 + [b"", data[:-1], data[: len(data) // 2], data[::-1]] for suffix, data in good.items()}
    made["npy"] += [deep, _encoded(lambda file: np.save(file, np.full((2, 3), np.nan)))]
    made["png"] += [jpg, b"%!PS-Adobe-3.0 EPSF-3.0\n", png[:60] + b"\xff" + png[61:]]
    return made | {"cls": list(LABELS) + [b"0", b"1"] * 20, "json": [*RECORDS, *[b'{"labels": [1]}'] * 20]}


@dataclass
class Found:
    """What came of the folders."""

    outcomes: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    bad: int = 0
    left_out: int = 0
    disagreements: list[str] = field(default_factory=list)


def write_folder(folder: Path, rng: random.Random, pool: dict[str, list[bytes]]) -> None:
    """Write a folder of one to four tars, each of up to twelve samples that are much alike."""
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    for number in range(rng.randint(1, 4)):
        split = rng.choice(("", *SPLITS))
        path = folder / split / f"{number}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape, key = rng.choice(SHAPES), rng.choice(KEYS)
        with tarfile.open(path, "w", format=rng.choice(forms)) as tar:
            for sample in range(rng.randint(1, 12)):
                for name, data in members(key.format(n=sample), shape, rng, pool):
                    header = tarfile.TarInfo(name)
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))
    if rng.random() < 0.1:
        (folder / "._0.tar").write_bytes(bytes(4096))


def members(
    key: str, shape: tuple[str, ...], rng: random.Random, pool: dict[str, list[bytes]]
) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of a sample; now and then a part is missing, odd, or of another kind."""
    for suffix in shape:
        if rng.random() < 0.04:
            continue
        shown = rng.choice(list(pool)) if rng.random() < 0.03 else suffix
        # Good ones are chosen most often: a folder in which all is bad is refused at once.
        name = rng.choice(NAMES) if rng.random() < 0.1 else NAMES[0]
        content = rng.choice(pool[suffix]) if rng.random() < 0.3 else pool[suffix][0 if suffix != "json" else -1]
        yield name.format(key=key, suffix=shown, SUFFIX=shown.upper()), content


def configurations(folder: Path, shards: Manifest, rng: random.Random) -> Iterator[DataConfig | None]:
    """Yield how the folder is read: all of it, and as one run may."""
    yield None
    there = {name for split in shards.splits.values() for name in inputs_in(split, DataConfig(inputs=SECTIONS))}
    chosen = {kind: section for kind, section in SECTIONS.items() if rng.random() < (0.7 if kind in there else 0.02)}
    if chosen:
        yield DataConfig(
            str(folder),
            inputs=chosen,
            labels=tuple(name for name in shards.named_labels if rng.random() < 0.5),
            multi_label=rng.random() < 0.5,
            require=tuple(kind for kind in chosen if rng.random() < 0.2),
        )


def verified(folder: Path, shards: Manifest, split: str, config: DataConfig | None) -> dict[tuple[str, str], str]:
    """Return what verify calls bad, by shard and key."""
    place, taken = LocalFolder(folder), verification.intake(shards, split, config)
    reports = [
        verification.verify_shard(place, entry, taken, verification.partners(shards, split), shards.label_names)
        for entry in shards.split(split).shards
    ]
    return {(str(folder / bad.shard), bad.key): bad.reason for report in reports for bad in report.bad}


def listed(path: Path) -> dict[tuple[str, str], str]:
    """Return what the loaders listed, by shard and key."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(line["shard"], line["key"]): line["reason"] for line in map(json.loads, lines)}


def read_all(loader: Loader, num_steps: int) -> None:
    with loader:
        for step in range(num_steps):
            batch = loader(step)
            assert np.isfinite(batch.weights.numpy()).all()


def _of_run(section: Any) -> Any:  # noqa: ANN401 - of any modality
    """Return the section as a run may have it: images are looked at in their own size, and read in one."""
    return replace(section, values="bytes") if isinstance(section, ImageConfig) else section


def check_split(folder: Path, shards: Manifest, split: str, config: DataConfig | None, found: Found) -> None:
    """Compare verify with an evaluation of the split, and of "train" with a training."""
    held = inputs_of(shards.split(split).shards.suffixes)
    inputs = {name: SECTIONS.get(name, _of_run(section)) for name, section in held.items()}
    everything = DataConfig(str(folder), inputs=inputs, labels=tuple(shards.named_labels))
    there = inputs_in(shards.split(split), config or everything)
    used = replace((config or everything).only(there), max_bad_rate=1.0, lanes=1, window=4, num_threads=1)
    if config is not None and used.inputs.keys() != config.inputs.keys():
        # The run asks for what no sample has, and is refused before its first step.
        found.outcomes["a configuration refused"] += 1
        return
    expected = verified(folder, shards, split, config)
    if any(isinstance(section, ArrayConfig) and not section.shape for section in used.inputs.values()):
        # Looked at without a run, an array may have any shape; a run needs one and is refused without it.
        found.outcomes["arrays of any shape, only verified"] += 1
        return
    list_path = folder / f"{len(found.disagreements)}.evaluation.jsonl"
    list_path.unlink(missing_ok=True)
    try:
        loader, num_steps = streams.eval_loader(used, split, global_batch=4, quarantine=list_path)
    except ValueError as error:
        found.outcomes["a configuration refused" if "data.require leaves out all" in str(error) else str(error)] += 1
        return
    num_left_out = sum(source.num_left_out for source in loader.assembler.sources)
    found.left_out += num_left_out
    read_all(loader, num_steps)
    agree(expected, listed(list_path), f"evaluation of {split!r}", found)
    found.samples += shards.split(split).num_samples
    found.bad += len(expected)
    # A training in which nearly all is bad ends, and lists what it met until then.
    if split == streams.TRAIN and len(expected) < (shards.split(split).num_samples - num_left_out) // 2:
        list_path.unlink(missing_ok=True)
        try:
            training = streams.train_loader(used, seed=0, global_batch=1, quarantine=list_path)
        except ValueError as error:
            # A class without a sample, as any training of these shards would be told.
            found.outcomes["a training refused" if "no sample to train on" in str(error) else str(error)] += 1
            return
        read_all(training, training.order.steps_per_epoch)
        agree(expected, listed(list_path), "training", found)
        found.outcomes["trainings"] += 1


def agree(expected: dict[tuple[str, str], str], got: dict[tuple[str, str], str], what: str, found: Found) -> None:
    for place in sorted(expected.keys() ^ got.keys()):
        said = f"verify: {expected.get(place, 'good')}; loader: {got.get(place, 'good')}"
        found.disagreements.append(f"{what}: {place}: {said}")
    for place in expected.keys() & got.keys():
        if expected[place] != got[place]:
            found.disagreements.append(f"{what}: {place}: other reasons: {expected[place]} / {got[place]}")


def check_folder(folder: Path, rng: random.Random, pool: dict[str, list[bytes]], found: Found) -> None:
    """Write a folder, adopt it, and compare."""
    write_folder(folder, rng, pool)
    asked = rng.choice((None, None, OWN, Records(labels="labels"), Records(weight="weight"), Records()))
    try:
        shards = adoption.index(folder, records=asked)
    except ValueError as error:
        found.outcomes["folders refused" if "\n" not in str(error) else str(error)] += 1
        return
    found.outcomes["folders read"] += 1
    for config in configurations(folder, shards, rng):
        for split in shards.splits:
            check_split(folder, shards, split, config, found)


def check(count: int, seed: int, tell: Callable[[str], object] = lambda _: None) -> Found:
    """Compare verify and training on that many folders."""
    found, pool = Found(), contents()
    memory = Path("/dev/shm")
    for number in range(count):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
            num_known = len(found.disagreements)
            try:
                check_folder(Path(name), random.Random(seed * 1_000_003 + number), pool, found)
            except Exception as error:  # noqa: BLE001 - a crash is a disagreement, and the next folder is tried
                found.disagreements.append(f"{type(error).__name__}: {error}")
            for sentence in found.disagreements[num_known:]:
                tell(f"folder {number} of seed {seed}: {sentence}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5_000, help="folders")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    start = time.monotonic()
    found = check(words.count, words.seed, lambda sentence: sys.stdout.write(f"{sentence}\n"))
    seconds = time.monotonic() - start
    sys.stdout.write(
        f"{words.count} folders in {seconds:.0f} s: {dict(found.outcomes)}; {found.samples} samples compared, "
        f"{found.bad} of them bad, {found.left_out} left out, {len(found.disagreements)} disagreements\n"
    )
    return int(bool(found.disagreements))


if __name__ == "__main__":
    sys.exit(main())
