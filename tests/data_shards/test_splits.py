"""Which samples are set aside for evaluation where nothing says so."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from data_shards.building.splits import with_test_share


def rows(*labels: int | None) -> list[Row]:
    return [Row(line, (Literal(b"x", "txt"),), label=label) for line, label in enumerate(labels)]


@given(
    labels=st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=80),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_about_the_share_of_each_class_is_set_aside_and_each_class_keeps_one(
    labels: list[int | None], share: float, seed: int
) -> None:
    given_rows = rows(*labels)
    try:
        split = with_test_share(given_rows, share, seed)
    except ValueError:
        # Nothing is due, or every class has a single sample.
        assert round(share * len(labels)) <= len(set(labels))
        return
    assert split == with_test_share(given_rows, share, seed)
    assert [row.line for row in split] == [row.line for row in given_rows]
    test = Counter(row.label for row in split if row.split == "test")
    for label, count in Counter(labels).items():
        assert test[label] <= share * count + 1
        assert test[label] < count
        assert test[label] >= min(share * count - 1, count - 1) - 1e-9


def test_a_class_of_a_further_label_keeps_a_sample_to_train_on() -> None:
    given_rows = [Row(line, (), label=0, named_labels={"writer": line}) for line in range(9)]
    with pytest.raises(ValueError, match="is none; give a larger share"):
        with_test_share(given_rows, 0.5, 0)
    several = [Row(line, (), labels=(0, 1 + line // 2)) for line in range(20)]
    train = {label for row in with_test_share(several, 0.5, 0) if row.split == "train" for label in row.labels}
    assert train == set(range(11))


@pytest.mark.parametrize(("num_rows", "share", "expected"), [(3, 0.5, 2), (10, 0.25, 3), (7, 0.1, 1), (100, 0.01, 1)])
def test_a_share_is_rounded_to_the_nearest_number(num_rows: int, share: float, expected: int) -> None:
    split = with_test_share(rows(*[0] * num_rows), share, 0)
    assert sum(row.split == "test" for row in split) == expected
    with pytest.raises(ValueError, match=r"--test-share 0\.1 of 4 samples is none; give a larger share"):
        with_test_share(rows(0, 0, 0, 0), 0.1, 0)


def test_another_seed_sets_other_samples_aside() -> None:
    given_rows = rows(*[0, 1] * 50)
    chosen = [{row.line for row in with_test_share(given_rows, 0.2, seed) if row.split == "test"} for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 20


def test_a_share_beside_a_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--test-share 0.1: there is a split already \(val\); leave the option out"):
        with_test_share([*rows(0), Row(9, (), split="val")], 0.1, 0)


@pytest.mark.parametrize("share", [-0.1, 1.0, 20, float("nan")])
def test_a_share_that_is_no_part_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match="is not from 0 to below 1"):
        build_table(rows(0, 0), tmp_path / "out", label_names=("a",), test_share=share)
    assert not (tmp_path / "out").exists()


def test_a_build_sets_a_share_aside_and_tells_it(tmp_path: Path) -> None:
    told: list[str] = []
    built = build_table(rows(*[0, 1] * 10), tmp_path, label_names=("a", "b"), test_share=0.2, tell=told.append)
    assert {name: split.label_counts for name, split in built.splits.items()} == {"train": (8, 8), "test": (2, 2)}
    assert told == ["set aside for the split test: 4 of 20 samples"]
    with pytest.raises(ValueError, match="begun from other rows"):
        build_table(rows(*[0, 1] * 10), tmp_path, label_names=("a", "b"))
