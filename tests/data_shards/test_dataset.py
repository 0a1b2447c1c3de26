"""What several datasets must share: classes, further labels and values, and what is told where they do not."""

import pytest

from data_shards.loading.dataset import are_numbers, classes_of_labels, numbers_of_values, shared_classes


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"one": ("a", "b")}, ("a", "b")),
        ({"one": ("a", "b"), "two": ("a", "b")}, ("a", "b")),
        # A folder without labels has no say, and of numbers the most count, whatever the folder is called.
        ({"z": (), "b": ("x",)}, ("x",)),
        ({"z": ("0",), "b": ("0", "1", "2"), "c": ("0", "1")}, ("0", "1", "2")),
        ({"one": ()}, ()),
    ],
)
def test_datasets_share_the_classes_that_one_of_them_names(
    found: dict[str, tuple[str, ...]], expected: tuple[str, ...]
) -> None:
    assert shared_classes(found) == expected


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            {"z": ("a",), "b": ("a", "b")},
            "^z: names 1 class of it, b names 2, or in another order; datasets that are mixed",
        ),
        ({"z": ("b", "a"), "b": ("a", "b")}, "^b: names 2 classes of it, z names 2, or in another order"),
        ({"z": ("0", "1"), "b": ("a", "b", "c")}, "^z: names 2 classes of it, b names 3"),
        ({"z": ("0", "2"), "b": ("0", "1")}, "^b: names 2 classes of it, z names 2"),
    ],
)
def test_datasets_of_other_classes_are_refused(found: dict[str, tuple[str, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        shared_classes(found, " of it")


def test_classes_are_numbers_where_they_count_from_0() -> None:
    assert are_numbers(["0", "1", "2"])
    assert are_numbers([])
    for names in (["1"], ["0", "2"], ["0", "a"], ["00"], ["1", "0"]):
        assert not are_numbers(names)


def test_a_further_label_has_the_classes_of_the_folders_that_have_it() -> None:
    found = {"one": {"kind": ("a", "b")}, "two": {"kind": ("a", "b"), "year": ("0",)}, "three": {"year": ("0", "1")}}
    assert classes_of_labels(["kind", "year"], found) == {"kind": 2, "year": 2}
    assert classes_of_labels([], found) == {}
    with pytest.raises(
        ValueError, match=r"^one: has no label 'size' \(further labels: kind, year\); take it out of data\.labels"
    ):
        classes_of_labels(["kind", "size"], found)
    with pytest.raises(ValueError, match=r"^one: has no label 'kind' \(further labels: none\)"):
        classes_of_labels(["kind"], {"one": {}})
    with pytest.raises(ValueError, match=r"^two: names 1 class of label 'kind', one names 2"):
        classes_of_labels(["kind"], {"one": {"kind": ("a", "b")}, "two": {"kind": ("a",)}})


def test_a_value_has_the_numbers_of_the_folders_that_have_it() -> None:
    found = {"one": {"size": 2}, "two": {"size": 2, "age": 1}, "three": {}}
    assert numbers_of_values(["age", "size"], found) == {"age": 1, "size": 2}
    with pytest.raises(
        ValueError, match=r"^one: has no value 'depth' \(values: age, size\); take it out of data\.values"
    ):
        numbers_of_values(["depth"], found)
    with pytest.raises(ValueError, match=r"^value 'size' has 2 in one, 3 in two numbers; datasets that are mixed must"):
        numbers_of_values(["size"], {"one": {"size": 2}, "two": {"size": 3}})
