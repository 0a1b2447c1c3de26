"""Which inputs samples have is found by what most of them hold, each under a name that a run takes."""

import io
import json
from typing import Any

import numpy as np
import pytest

from launch.planning.found_inputs import found_inputs, numbers_in_records, unread_in_records, usable

Sample = dict[str, bytes]


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    np.savez(content, **{name: np.zeros(3) for name in names})
    return content.getvalue()


def sample(*suffixes: str) -> Sample:
    return dict.fromkeys(suffixes, b"x")


def records(*contents: object) -> list[Sample]:
    return [{"json": content if isinstance(content, bytes) else json.dumps(content).encode()} for content in contents]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # One array is an array, several are an input each, by the first archive that can be read.
        ([{"npz": archive("x")}], [("array", "array", ()), ("points", "points", ())]),
        ([{}, {"npz": b"no"}, {"npz": archive("x", "y")}], [("x", "array", "npz/x"), ("y", "array", "npz/y")]),
        (
            [{f"{name}.npz": archive("x", "y") for name in "dbca"}],
            [
                (f"{name}{'_array' * number}", "array", f"{archive}.npz/{name}")
                for number, archive in enumerate("abcd")
                for name in "xy"
            ],
        ),
        # A pair of frames where half of the frames have a motion; the frames as pictures where fewer have one.
        (
            [sample("first.png", "second.png", "flo"), sample("first.png", "second.png")],
            [("flow", "flow", ())],
        ),
        (
            [sample("first.png", "second.png", "flo"), *[sample("first.png", "second.png")] * 2],
            [("first", "image", "first.png"), ("second", "image", "second.png")],
        ),
        # Frames of several formats, and motions of both.
        (
            [sample("first.png", "second.png", "flo"), sample("first.jpg", "second.jpg", "motion.png")],
            [("flow", "flow", ())],
        ),
        ([sample("first.png"), sample("first.png")], [("first", "image", "first.png")]),
        # Two formats in most samples are two inputs, and one input where half of the samples have both.
        ([sample("jpg", "png"), sample("jpg")], [("image", "image", ())]),
        ([*[sample("jpg", "png")] * 2, sample("jpg")], [("jpg", "image", "jpg"), ("png", "image", "png")]),
        ([sample("jpg", "png"), sample("txt"), sample("txt")], [("jpg", "image", "jpg"), ("png", "image", "png"),
                                                                ("text", "text", ())]),
        ([sample("left.jpg"), sample("left.png")], [("left", "image", ("left.jpg", "left.png"))]),
        (
            [sample("left.jpg"), sample("right.png"), sample("jpg")],
            [("image", "image", ()), ("left", "image", "left.jpg"), ("right", "image", "right.png")],
        ),
        (
            [sample("left.jpg", "left.png"), sample("left.png")],
            [("left", "image", ("left.jpg", "left.png"))],
        ),
        (
            [sample("left.jpg", "left.png"), sample("left.png", "left.jpg")],
            [("left", "image", "left.jpg"), ("left_png", "image", "left.png")],
        ),
        # A text is a field that has several words in most records; names that are equal are told apart.
        (
            records({"b": "two words", "a": "also two", "c": "one", "d": 3}, {"a": "two again", "b": "two more"}),
            [("a", "text", "json.a"), ("b", "text", "json.b")],
        ),
        (records({"a": "two words"}, {"a": "one"}), []),
        (records({"a": "two words"}, {"a": "two more"}, {"a": "one"}), [("a", "text", "json.a")]),
        (records(b"{", [1], {"a": "two words"}, {"a": "two more"}, {"a": "two again"}), [("a", "text", "json.a")]),
        (records({"a+": "two words", "a-": "more words", "a*": "two words"}), [
            ("a_", "text", "json.a*"), ("a__text", "text", "json.a+"), ("a-", "text", "json.a-")]),
    ],
)  # fmt: skip
def test_inputs_are_those_that_most_samples_have(samples: list[Sample], expected: list[tuple[str, str, Any]]) -> None:
    found = [(name, section.modality, section.members) for name, section in found_inputs(samples)]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b-c_1", "a b-c_1"),
        ("a+b.c", "a_b_c"),
        ("  a", "a"),
        (" ", "_"),
        ("", "_"),
        ("all", "all_"),
        ("\u00e9", "\u00e9"),
    ],
)
def test_a_name_is_made_usable(name: str, expected: str) -> None:
    assert usable(name) == expected


def test_numbers_and_fields_that_nothing_reads_are_those_of_most_records() -> None:
    found = records(
        {"z": 1, "b": 2.5, "flag": True, "none": None, "url": "u", "text": "two words", "known": "k", "few": 1},
        {"z": 2, "b": "x", "flag": False, "none": None, "url": "v", "text": "two words", "known": "k"},
        {"z": 2, "b": 1, "flag": False, "url": "v", "text": "two words", "known": "k"},
    )
    assert numbers_in_records(found) == ["b", "z"]
    assert unread_in_records(found, ["known"]) == ["flag", "url"]
    # Half of the records are not most of them.
    assert numbers_in_records(records({"a": 1}, {})) == []
    assert numbers_in_records([*records({"a": 1}), sample("png")]) == ["a"]
