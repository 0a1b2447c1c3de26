"""What is refused of rows before any of them is written, with its line."""

from pathlib import Path

import pytest

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import File, Literal, Row
from data_shards.building.row_checks import check, num_values, refuse_empty_classes
from data_shards.files import history


def rows(*labels: int, split: str = "train") -> list[Row]:
    return [Row(line, (), label=label, split=split) for line, label in enumerate(labels, start=1)]


def test_rows_with_labels_of_every_class_are_taken() -> None:
    check(rows(0, 1, 1), ["a", "b"], {})
    check([Row(1, (), labels=(0, 2)), Row(2, (), label=1, labels=(0,)), Row(3, ())], ["a", "b", "c"], {})
    # What is for evaluation alone needs no class in training.
    check(rows(1, split="test"), ["a", "b"], {})
    check([Row(1, (), named_labels={"kind": 0}), Row(2, ())], [], {"kind": ["x"]})


@pytest.mark.parametrize(
    ("given", "names", "named", "sentence"),
    [
        (
            rows(0, 2),
            ["a", "b"],
            {},
            r"^line 2: label 2 is out of range; there are 2 classes, so labels go from 0 to 1$",
        ),
        (rows(1), ["a"], {}, r"^line 1: label 1 is out of range; there is 1 class, so labels go from 0 to 0$"),
        (rows(0, -1), ["a"], {}, r"^line 2: label -1 is out of range"),
        (
            [Row(1, (), named_labels={"kind": 1})],
            [],
            {"kind": ["x"]},
            r"^line 1: label 'kind' 1 is out of range; there is 1 class",
        ),
        (rows(0), ["a", "b", "c"], {}, r"^2 of 3 classes have no sample in the split 'train': b, c; add samples"),
        (
            [*rows(0), Row(9, (), label=1, split="test")],
            ["a", "b"],
            {},
            r"^1 of 2 classes have no sample in the split 'train': b; add samples of them or leave the classes out$",
        ),
        (
            [Row(1, (), named_labels={"kind": 1}), Row(2, ())],
            [],
            {"kind": ["x", "y"]},
            r"^1 of 2 'kind' classes have no sample in the split 'train': x; add",
        ),
        (
            rows(0, 1, 2),
            ["a", "b", "a"],
            {},
            r"^the classes 0 and 2 are both called 'a'; give one of them another name$",
        ),
        (
            [Row(1, (), named_labels={"kind": 0})],
            [],
            {"kind": ["x", "x"]},
            r"^the 'kind' classes 0 and 1 are both called 'x'",
        ),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(
    given: list[Row], names: list[str], named: dict[str, list[str]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check(given, names, named)


def test_classes_are_empty_where_training_has_none_of_them() -> None:
    refuse_empty_classes({"train": [1, 2], "test": [0, 0]}, ["a", "b"])
    refuse_empty_classes({"test": [0, 0]}, ["a", "b"])
    refuse_empty_classes({}, ["a", "b"])
    with pytest.raises(ValueError, match="2 of 2 classes have no sample"):
        refuse_empty_classes({"train": [0, 0]}, ["a", "b"])


def test_a_value_has_as_many_numbers_in_every_row() -> None:
    several = [
        Row(1, (), values={"size": (1.0, 2.0)}),
        Row(2, ()),
        Row(3, (), values={"age": (1.0,), "size": (0.0, 0.0)}),
    ]
    assert list(num_values(several).items()) == [("age", 1), ("size", 2)]
    assert num_values(rows(0)) == {}
    with pytest.raises(
        ValueError, match=r"^line 4: value 'size' has 1 number, on line 1 it has 2; write as many in every row, nan for"
    ):
        num_values([*several, Row(4, (), values={"size": (1.0,)})])


def test_rows_of_one_line_are_a_slip_of_ours() -> None:
    with pytest.raises(AssertionError, match="rows share a line"):
        check([Row(1, ()), Row(1, ())], [], {})


def test_a_build_checks_its_rows_before_it_makes_a_folder(tmp_path: Path) -> None:
    for given, sentence in ((rows(0, 2), "label 2 is out of range"), (rows(0), "1 of 2 classes have no sample")):
        with pytest.raises(ValueError, match=sentence):
            build_table(given, tmp_path / "out", label_names=["a", "b"])
    with pytest.raises(ValueError, match="value 'size' has 1 number"):
        build_table([Row(1, (), values={"size": (1.0, 2.0)}), Row(2, (), values={"size": (1.0,)})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_new_build_has_nothing_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(history, "tell", told.append)
    row = Row(1, (Literal(b"a", "txt"),))
    done: list[tuple[int, int]] = []
    built = build_table([row], tmp_path / "out", tell=told.append, progress=lambda *each: done.append(each))
    assert (told, done) == ([], [(1, 1)])
    # Built before: nothing is done again.
    assert build_table([row], tmp_path / "out", tell=told.append, progress=lambda *each: done.append(each)) == built
    assert (told, done) == ([], [(1, 1)])


def test_a_class_whose_samples_are_all_bad_is_refused_when_that_is_known(tmp_path: Path) -> None:
    good, lost = Literal(b"a", "txt"), File(str(tmp_path / "gone.txt"))
    given = [Row(1, (good,), 0), Row(2, (lost,), 1), Row(3, (good,), 0)]
    with pytest.raises(ValueError, match="1 of 2 classes have no sample in the split 'train': b"):
        build_table(given, tmp_path / "out", label_names=["a", "b"], max_bad=1)
    assert not (tmp_path / "out" / "manifest.json").exists()
