"""Columns of a table of answers: no output takes the place of another one's, or of the sample's key."""

import math
from types import SimpleNamespace
from typing import cast

import pytest

from configs.run import RunConfig
from launch.answers.answering import _add, batch_of, plain
from launch.answers.columns import name_of
from trainer.config import TrainConfig
from trainer.tasks.answer import Row

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


def test_a_column_that_two_outputs_tell_stands_there_for_each() -> None:
    row: Row = {}
    _add(row, {"score": 1}, "label", OUTPUTS)
    _add(row, {"score": 2, "near_photo": 3}, "near", OUTPUTS)
    assert row == {"score": 1, "near.score": 2, "near.photo": 3}


def test_no_cell_of_a_table_is_a_number_that_json_has_not() -> None:
    assert plain([1.5, math.nan, [math.inf, 2, "a"], None]) == [1.5, None, [None, 2, "a"], None]


@pytest.mark.parametrize(
    ("micro_batch", "global_batch", "expected"), [(0, 8, 8), (0, 64, 64), (0, 1_000, 64), (16, 1_000, 16)]
)
def test_as_many_are_answered_at_once_as_are_trained_on_and_not_thousands(
    micro_batch: int, global_batch: int, expected: int
) -> None:
    train = TrainConfig(micro_batch=micro_batch, global_batch=global_batch)
    assert batch_of(cast("RunConfig", SimpleNamespace(train=train))) == expected
