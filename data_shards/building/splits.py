"""Splits: which names of folders and cells mean one, and which samples become the test split where there is none."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_shards.building.raw_sample import Row

TRAIN, TEST = "train", "test"
_NAMES = {
    # val, valid and dev stay apart: some data sets have several, and data.eval_split names one.
    **{name: name for name in (TRAIN, "val", "valid", "validation", "dev", TEST, "eval")},
    "training": TRAIN,
    "testing": TEST,
}


def split_of(name: str) -> str | None:
    """Return the split that a folder or cell of that name means, in any case; None where it means none."""
    return _NAMES.get(name.strip().lower())


def refuse_share(share: float) -> None:
    """Raise ValueError where no part of the samples can be meant."""
    if not 0 <= share < 1:
        raise ValueError(f"a test share of {share} is not from 0 to below 1; --test-share 0.1 sets a tenth aside")


def with_test_share(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """Return the rows with about that share of each class in the split test: the same ones for the same rows and seed.

    Each class keeps a sample to train on. Raises ValueError where there is a split already, or nothing to set aside.
    """
    refuse_share(share)
    others = sorted({row.split for row in rows} - {TRAIN})
    if others:
        raise ValueError(f"--test-share {share}: there is a split already ({', '.join(others)}); leave the option out")
    chosen = _chosen(rows, share, seed)
    if not chosen:
        raise ValueError(f"--test-share {share} of {len(rows)} samples is none; give a larger share")
    return [replace(row, split=TEST) if number in chosen else row for number, row in enumerate(rows)]


def _chosen(rows: Sequence[Row], share: float, seed: int) -> set[int]:
    """Return the numbers of the rows to set aside: every 1/share-th of the rows in order of class, shuffled within."""
    # Shuffled before the classes are cut: the first files of a folder are often of one recording or one writer.
    draws = np.random.Generator(np.random.Philox(key=[seed, len(rows)])).permutation(len(rows))
    of_class: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number in draws.tolist():
        row = rows[number]
        # Of several labels, the combination: a class is then in both splits about as often as it can be.
        of_class[row.labels if row.label is None else (row.label,)].append(number)
    chosen: set[int] = set()
    place = 0
    remaining = Counter(each for row in rows for each in _classes(row))
    for _, numbers in sorted(of_class.items()):
        for number in numbers:
            place += 1
            # Rounded to the nearest, so that a share of N samples is as near to share * N as can be.
            due = int(place * share + 0.5) > int((place - 1) * share + 0.5)
            # Of every class of the row, further labels too: training refuses a class that has no sample.
            if due and all(remaining[each] > 1 for each in _classes(rows[number])):
                chosen.add(number)
                remaining.subtract(_classes(rows[number]))
    return chosen


def _classes(row: Row) -> list[tuple[str, int]]:
    """Return the classes of a row, the further labels' too; those without one are a class of their own."""
    return [*(("", label) for label in all_labels(row)), *row.named_labels.items()] or [("", -1)]


def all_labels(row: Row) -> tuple[int, ...]:
    """Return every label of a row."""
    return row.labels if row.label is None else (*row.labels, row.label)
