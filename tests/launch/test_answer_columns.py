"""Columns of a table of answers: no output takes the place of another one's, or of the sample's key."""

import pytest

from launch.answers.columns import name_of

OUTPUTS = ("key", "label", "label_true", "label_2", "near", "near_photo")


@pytest.mark.parametrize(
    ("output", "column", "expected"),
    [
        ("label", "label", "label"),
        ("label", "label_probability", "label_probability"),
        ("label", "label_true", "label.true"),
        ("label_true", "label_true", "label_true"),
        ("label_true", "label_true_true", "label_true_true"),
        ("label", "label_2_probability", "label.2_probability"),
        ("label_2", "label_2_probability", "label_2_probability"),
        ("label", "label_3", "label_3"),
        ("near", "near_photo", "near.photo"),
        ("near", "near_sound", "near_sound"),
        ("key", "key", "output.key"),
        ("key", "key_probability", "key_probability"),
        ("shard", "shard", "output.shard"),
        ("label", "score", "score"),
        ("near", "label_true", "near.label_true"),
    ],
)
def test_a_column_is_that_of_the_output_with_the_longest_name_that_it_begins_with(
    output: str, column: str, expected: str
) -> None:
    assert name_of(column, output, OUTPUTS) == expected
