"""The files below a folder: their order, which are hidden, and what is told of those that are skipped."""

from pathlib import Path

import pytest

from data_shards.sources.parsing.folder_files import (
    file_of,
    is_hidden,
    passed_over,
    paths_below,
    split_counts,
    split_in,
    suffix_of,
    tell_passed_over,
    walk,
)

NAMES = ("k", "b", "z", "a", "q", "c", "m", "e")


def test_folders_and_files_come_in_the_order_of_their_names_on_every_disk(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "0").touch()
        (tmp_path / f"{name}.png").touch()
    found = list(walk(tmp_path))
    folders = [places for name in sorted(NAMES) for places in ((name,), (name, "inner"))]
    assert [names for _, names, _ in found] == [(), *folders]
    assert found[0] == (str(tmp_path), (), tuple(f"{name}.png" for name in sorted(NAMES)))
    assert found[2] == (str(tmp_path / "a" / "inner"), ("a", "inner"), ("0",))
    expected = [*(f"{name}.png" for name in sorted(NAMES)), *(f"{name}/inner/0" for name in sorted(NAMES))]
    assert [path.relative_to(tmp_path).as_posix() for path in paths_below(tmp_path)] == expected


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for name in ("a", "gone"):
        with pytest.raises(ValueError, match=f"{name}: no such folder"):
            list(walk(tmp_path / name))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a", "b.png"), False),
        ((), False),
        (("a", ".b.png"), True),
        ((".a", "b.png"), True),
        (("__MACOSX", "b.png"), True),
        (("a", "@eaDir", "b"), True),
        (("__MACOSX_", "b"), False),
    ],
)
def test_a_file_is_hidden_where_a_name_on_its_way_is(names: tuple[str, ...], expected: bool) -> None:
    assert is_hidden(names) == expected


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.PNG", ".png"),
        ("a.tar.gz", ".gz"),
        ("a", "without a suffix"),
        ("a." + "x" * 19, "." + "x" * 19),
        ("a." + "x" * 20, "of an odd suffix"),
        ("a.x\ty", "of an odd suffix"),
    ],
)
def test_a_suffix_is_counted_in_lower_case_unless_it_is_none(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


def test_what_is_skipped_is_told_by_suffix_and_the_most_frequent_first(tmp_path: Path) -> None:
    assert passed_over({".a": 1, ".b": 3}, "text") == "skipped, no text: 3 .b, 1 .a"
    kinds = {f".{number}": 20 - number for number in range(12)}
    assert passed_over(kinds, "text").endswith("11 .9, 19 of 2 more kinds")
    paths = [tmp_path / name for name in ("b.md", "c.md", ".hidden/a.txt", "LICENSE")]
    told: list[str] = []
    tell_passed_over(tmp_path, paths, "text", told.append)
    assert told == [f"{tmp_path}: skipped, no text: 2 .md, 1 hidden, 1 without a suffix"]
    tell_passed_over(tmp_path, [], "text", told.append)
    assert len(told) == 1


def test_files_and_splits_are_called_by_their_names() -> None:
    assert file_of("points") == "points file (npy, npz, ply, off)"
    assert split_counts({"val": 1, "train": 2, "test": 3}, "clip") == "splits: test 3 clips, train 2 clips, val 1 clip"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("VALIDATION_list.txt", "validation"),
        ("eval-1.csv", "eval"),
        ("contest.csv", None),
        ("a.test", None),
        ("test_Testing.csv", "test"),
    ],
)
def test_a_word_of_a_files_name_may_be_a_split(name: str, split: str | None) -> None:
    assert split_in(Path("train", name)) == split


def test_a_name_of_two_splits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"val-train\.csv: names the splits train and val; rename it"):
        split_in(Path("val-train.csv"))
