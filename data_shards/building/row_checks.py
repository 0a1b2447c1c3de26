"""What the rows of a build must keep to before anything is written: labels, classes and values."""

from collections import Counter
from collections.abc import Mapping, Sequence

from data_shards.building.raw_sample import Row
from data_shards.building.splits import all_labels
from data_shards.files.quoting import counted, listed, shown


def check(rows: Sequence[Row], label_names: Sequence[str], named_labels: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for no rows, labels out of range, two classes of one name, and classes without a sample."""
    if not rows:
        raise ValueError("there are no samples to build shards from")
    assert len({row.line for row in rows}) == len(rows), "rows share a line, and so a key"
    _refuse_twins(label_names)
    _check_labels({row.line: all_labels(row) for row in rows}, rows, label_names)
    for name, classes in named_labels.items():
        _refuse_twins(classes, f" {shown(name)}")
        given = {row.line: (row.named_labels[name],) for row in rows if name in row.named_labels}
        _check_labels(given, rows, classes, f" {shown(name)}")


def num_values(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many numbers each value has; ValueError where it has more in one row than in another."""
    first: dict[str, Row] = {}
    for row in rows:
        for name, numbers in row.values.items():
            before = first.setdefault(name, row)
            if len(numbers) != len(before.values[name]):
                raise ValueError(
                    f"line {row.line}: value {shown(name)} has {counted(len(numbers), 'number')}, on line "
                    f"{before.line} it has {len(before.values[name])}; write as many in every row, nan for one that is "
                    "not known"
                )
    return {name: len(row.values[name]) for name, row in sorted(first.items())}


def _check_labels(
    given: Mapping[int, tuple[int, ...]], rows: Sequence[Row], label_names: Sequence[str], which: str = ""
) -> None:
    """Refuse labels, by line, that are out of range, and classes without a sample."""
    counts: dict[str, Counter[int]] = {}
    for row in rows:
        labels = given.get(row.line, ())
        for label in labels:
            if not 0 <= label < len(label_names):
                raise ValueError(
                    f"line {row.line}: label{which} {label} is out of range; there "
                    f"{'is' if len(label_names) == 1 else 'are'} {counted(len(label_names), 'class')}, so labels go "
                    f"from 0 to {len(label_names) - 1}"
                )
        # By split: a class that evaluation alone has is as empty for training as one that nobody has.
        counts.setdefault(row.split, Counter()).update(labels)
    of_split = {split: [count[label] for label in range(len(label_names))] for split, count in counts.items()}
    refuse_empty_classes(of_split, label_names, which)


def _refuse_twins(label_names: Sequence[str], which: str = "") -> None:
    """Answers and counts name their classes: of two with one name nobody could tell which is meant."""
    first: dict[str, int] = {}
    for label, name in enumerate(label_names):
        if first.setdefault(name, label) != label:
            raise ValueError(
                f"the{which} classes {first[name]} and {label} are both called {shown(name)}; give one of them "
                "another name"
            )


def refuse_empty_classes(counts: Mapping[str, Sequence[int]], label_names: Sequence[str], which: str = "") -> None:
    """A class that is never seen in training cannot be learned, and is mostly a mistake in the labels."""
    # Without training there is nothing to learn: Sintel's pairs are for evaluation alone.
    train = counts.get("train")
    empty = [name for name, count in zip(label_names, train or (), strict=False) if not count]
    if empty:
        raise ValueError(
            f"{len(empty)} of {len(label_names)}{which} classes have no sample in the split 'train': "
            f"{listed(empty)}; add samples of them or leave the classes out"
        )
