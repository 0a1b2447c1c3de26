import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.sources import text
from data_shards.tar_index import TarIndex

LINES = st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30), max_size=12)


def chunks(path: Path, num_bytes: int) -> list[bytes]:
    return [chunk.read() for chunk in text._chunks(path, num_bytes)]


@given(lines=LINES, num_bytes=st.integers(4, 40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_are_the_text_cut_between_characters(tmp_path: Path, lines: list[str], num_bytes: int) -> None:
    plain, as_json = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_bytes("\n".join(lines).encode())
    as_json.write_text("\n".join(json.dumps({"text": line, "id": 1}) for line in lines))
    expected = {plain: "\n".join(lines).encode(), as_json: "".join(f"{line}\n" for line in lines if line).encode()}
    for path, whole in expected.items():
        cut = chunks(path, num_bytes)
        assert b"".join(cut) == whole
        for chunk in cut[:-1]:
            chunk.decode()
            assert num_bytes - 4 < len(chunk) <= num_bytes


def test_a_text_becomes_shards_of_its_splits(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.txt").write_text("x" * 100)
    (tmp_path / "train" / "b.jsonl").write_text('{"text": "short"}\n')
    (tmp_path / "test.txt").write_text("y" * 10)
    files = {"train": tmp_path / "train", "test": tmp_path / "test.txt"}
    built = text.build(files, tmp_path / "out", num_bytes=40)
    assert built.split("train").num_samples == 4
    assert built.split("test").shards[0].modalities == {"text": 1}
    assert built.label_names == ()
    index = TarIndex.read(tmp_path / "out" / "train" / "000000.idx")
    assert sorted(length for sample in range(4) for _, length in index.members(sample).values()) == [6, 20, 40, 40]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"words": "x"}\n', 'expected an object with "text"'),
        ("a.jsonl", b"no json\n", "expected an object"),
        ("a.txt", b"", "no samples"),
        ("folder/readme.md", b"x", "no .txt or .jsonl"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        text.build({"train": path.parent if "/" in name else path}, tmp_path / "out")


def test_a_missing_file_and_a_chunk_too_short_for_a_character_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        text.build({"train": tmp_path / "gone.txt"}, tmp_path / "out")
    with pytest.raises(ValueError, match="cannot hold every character"):
        text.build({"train": tmp_path}, tmp_path / "out", num_bytes=3)
