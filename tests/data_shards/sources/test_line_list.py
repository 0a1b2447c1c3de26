"""Lists that are read by the numbers of their lines: no line is moved by what somebody added to the file."""

import codecs
from pathlib import Path

import pytest

from data_shards.sources.parsing import line_list
from data_shards.sources.parsing.class_names import distinct

HARMLESS = {
    "as published": b"airplane\nnight stand\nsofa\n",
    "no last line end": b"airplane\nnight stand\nsofa",
    "blank lines at the end": b"airplane\nnight stand\nsofa\n\n \t\n\n",
    "Windows": b"airplane\r\nnight stand\r\nsofa\r\n\r\n",
    "old Macintosh": b"airplane\rnight stand\rsofa\r",
    "byte order mark": codecs.BOM_UTF8 + b"airplane\nnight stand\nsofa\n",
    "UTF-16": "\ufeffairplane\r\nnight stand\r\nsofa\r\n".encode("utf-16-le"),
    "blanks around the names": b"  airplane \nnight stand\t\n\tsofa\n",
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_what_editors_add_to_a_list_of_names_changes_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(data)
    assert line_list.names(tmp_path / "names.txt") == ["airplane", "night stand", "sofa"]


def test_a_character_that_other_programs_break_lines_at_is_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\u2028b\nc\x0cd\n", encoding="utf-8")
    assert line_list.names(tmp_path / "names.txt") == ["a\u2028b", "c\x0cd"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("airplane\n\nsofa\n", "line 2: is blank, and lines are counted here; remove it, or write what belongs there"),
        ("\nairplane\nsofa\n", "line 1: is blank"),
        ("airplane\n   \t\nsofa\n", "line 2: is blank"),
        ("# ModelNet40\nairplane\n", "line 1: '# ModelNet40' begins with #, and lines are counted here; remove it"),
        ("airplane\n  # sofa\n", "line 2: '# sofa' begins with #"),
        ("crane\nsofa\ncrane\n", "lines 1 and 3 both name the class 'crane'; give one of them another name"),
        ("caf\u00e9\ncafe\u0301\n", "lines 1 and 2 both name the class"),
    ],
)
def test_a_line_that_would_move_or_join_classes_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"names\.txt: ") as error:
        line_list.names(tmp_path / "names.txt")
    assert sentence in str(error.value)


def test_names_that_several_classes_have_are_told_apart() -> None:
    assert distinct(["crane", "sofa", "crane"], ["134", "135", "517"]) == ["crane (134)", "sofa", "crane (517)"]
