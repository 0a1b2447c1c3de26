"""JSON becomes a dataclass only where every value has its type; what is wrong is named."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data_shards.files.typed_json import MAX_BYTES, read, read_object, typed


@dataclass(frozen=True)
class Part:
    count: int


@dataclass(frozen=True)
class Whole:
    name: str
    share: float
    is_on: bool
    names: tuple[str, ...]
    parts: dict[str, Part]
    limit: int | None = None
    scale: dict[str, int | float] = field(default_factory=dict)
    anything: Any = None


GOOD = {
    "name": "a",
    "share": 1,
    "is_on": True,
    "names": ["b"],
    "parts": {"c": {"count": 2}},
    "scale": {"d": 3, "e": 1.5},
}


def test_every_value_has_its_type() -> None:
    whole = typed(Whole, GOOD)
    assert whole == Whole("a", 1.0, True, ("b",), {"c": Part(2)}, scale={"d": 3, "e": 1.5})
    assert isinstance(whole.share, float)
    assert isinstance(whole.scale["d"], int)
    assert typed(Whole, {**GOOD, "limit": 5}).limit == 5
    assert typed(Whole, {**GOOD, "limit": None}).limit is None


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("name", 5, "name: expected a text, got 5"),
        ("share", "1", "share: expected a number, got '1'"),
        ("share", True, "share: expected a number, got True"),
        ("share", 10**400, "share: expected a number"),
        ("is_on", 1, "is_on: expected bool, got 1"),
        ("names", "b", "names: expected a list, got 'b'"),
        ("names", ["b", 1], r"names\[1\]: expected a text, got 1"),
        ("parts", {"c": 2}, r"parts\.c: expected an object, got 2"),
        ("parts", {"c": {}}, r"parts\.c\.count: is missing"),
        ("parts", {"c": {"count": 2, "more": 1}}, r"parts\.c\.more: is unknown"),
        ("parts", {"c": {"count": 2.5}}, r"parts\.c\.count: expected a whole number, got 2\.5"),
        ("limit", "5", "limit: expected a whole number, got '5'"),
        ("limit", 2**63, "limit: expected a whole number"),
        ("limit", True, "limit: expected a whole number, got True"),
        ("scale", {"d": None}, r"scale\.d: expected a number, got None"),
        ("share", "x" * 10**6, r"got 'x{39} \.\.\."),
    ],
)
def test_a_wrong_type_is_named_with_what_was_expected(tmp_path: Path, key: str, value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        typed(Whole, {**GOOD, key: value})
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({**GOOD, key: value}))
    with pytest.raises(ValueError, match=rf"{path}: cannot be read \(.*{sentence}"):
        read(Whole, path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"[]", b"null", b'{"a": ', b"[" * 10**5, b'{"a":' * 10**5, b"\xff\xfe{}"]
)
def test_what_is_no_object_is_refused_with_the_files_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"file: cannot be read"):
        read_object(tmp_path / "file")


def test_a_folder_a_missing_file_and_one_that_would_take_the_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory"):
        read_object(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        read_object(tmp_path / "missing")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=r"sparse: cannot be read \(has more than"):
        read_object(tmp_path / "sparse")
