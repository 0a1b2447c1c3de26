import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.format.tar_index import TarIndex
from data_shards.sources import text

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
    assert built.split("test").shards.suffixes == {"txt": 1}
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


def test_an_interrupted_build_of_compressed_text_goes_on_where_it_was(tmp_path: Path) -> None:
    def write(letters: bytes) -> None:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(letters * 100))

    def stop(done: int, total: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    def build(out: str, progress: Callable[[int, int], None] | None = None) -> None:
        files = {"train": tmp_path / "a.txt.gz"}
        text.build(files, tmp_path / out, num_bytes=10, samples_per_shard=5, progress=progress)

    write(b"abc")
    with pytest.raises(KeyboardInterrupt):
        build("out", stop)
    # As an earlier process leaves it that was killed.
    (tmp_path / "out" / ".build" / "text.1").mkdir()
    first = (tmp_path / "out" / "train" / "000000.tar").stat().st_ino
    write(b"xyz")
    with pytest.raises(ValueError, match="begun from other rows, files"):
        build("out")
    write(b"abc")
    build("out")
    build("clean")
    assert (tmp_path / "out" / "train" / "000000.tar").stat().st_ino == first
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_of_others_are_left_alone_and_nothing_is_unpacked_beside_them(tmp_path: Path) -> None:
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "a.tar").touch()
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"abc"))
    with pytest.raises(ValueError, match="another origin"):
        text.build({"train": tmp_path / "a.txt.gz"}, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a.tar", "train"]


@pytest.mark.parametrize("text_of", [3, ["a"], {"a": 1}, True])
def test_a_text_that_is_no_string_is_refused_with_its_line(tmp_path: Path, text_of: object) -> None:
    lines = [{"text": "a"}, {"text": None}, {"text": ""}, {"text": text_of}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r'a\.jsonl: line 4: expected a string as "text", got '):
        text.build({"train": tmp_path / "a.jsonl"}, tmp_path / "out")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").symlink_to("gone")
    with pytest.raises(
        ValueError, match=r"a\.txt: cannot be read \(No such file or directory\); correct its permissions"
    ):
        text.build({"train": tmp_path / "in"}, tmp_path / "out")


def test_linked_folders_of_text_are_read(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("abc")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "store")
    assert text.build({"train": tmp_path / "in"}, tmp_path / "out").split("train").num_samples == 1


def places(path: Path, num_bytes: int) -> list[tuple[int, int, int, int]]:
    """First byte of the stretch, byte behind it, bytes that are skipped, and length of each chunk."""
    return [(chunk.start, chunk.stop, chunk.skip, chunk.num_bytes) for chunk in text._chunks(path, num_bytes)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # The second chunk begins in the middle of a line.
        (["ab", "cdef"], [(0, 32, 0, 4), (15, 32, 1, 4)]),
        # It begins with a line, and needs none before it.
        (["abc", "d"], [(0, 30, 0, 4), (16, 30, 0, 2)]),
        # A line is longer than several chunks, and the last one ends in the next line.
        (["abcdefghi", "k"], [(0, 22, 0, 4), (0, 22, 4, 4), (0, 36, 8, 4)]),
        # It begins in the line before the last one that it has.
        (["abcde", "", "f"], [(0, 18, 0, 4), (0, 45, 4, 4)]),
        (["ab"], [(0, 15, 0, 3)]),
        ([""], []),
    ],
)
def test_a_chunk_of_json_lines_knows_the_lines_that_it_is_from(
    tmp_path: Path, texts: list[str], expected: list[tuple[int, int, int, int]]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    assert places(path, 4) == expected
    assert b"".join(chunks(path, 4)).decode() == "".join(f"{each}\n" for each in texts if each)


@pytest.mark.parametrize(
    ("content", "num_bytes", "expected"),
    [
        ("abcdefgh", 4, [(0, 4, 0, 4), (4, 8, 0, 4)]),
        ("abcdefghi", 4, [(0, 4, 0, 4), (4, 8, 0, 4), (8, 9, 0, 1)]),
        ("abc", 4, [(0, 3, 0, 3)]),
        # Characters of two, three and four bytes are not cut, and those that end at the border are whole.
        ("abcé", 4, [(0, 3, 0, 3), (3, 5, 0, 2)]),
        ("abé", 4, [(0, 4, 0, 4)]),
        ("ab€", 4, [(0, 2, 0, 2), (2, 5, 0, 3)]),
        ("a€x", 4, [(0, 4, 0, 4), (4, 5, 0, 1)]),
        ("a👩", 4, [(0, 1, 0, 1), (1, 5, 0, 4)]),
        ("👩👩", 7, [(0, 4, 0, 4), (4, 8, 0, 4)]),
    ],
)
def test_a_chunk_of_text_ends_between_characters(
    tmp_path: Path, content: str, num_bytes: int, expected: list[tuple[int, int, int, int]]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(content)
    assert places(path, num_bytes) == expected


def test_a_chunk_names_its_file_and_place_and_a_copy_the_text_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcdefgh")
    _, plain = text._chunks(path, 4)
    assert (plain.origin, plain.digest, plain.extension) == (f"{path}, byte 4", "", "txt")
    _, copy = text._chunks(path, 4, tmp_path / "a.txt.gz")
    assert (copy.origin, copy.digest, copy.read()) == (f"{tmp_path}/a.txt.gz, byte 4", "a.txt", b"efgh")


def lengths(folder: Path) -> list[int]:
    """Bytes of each text, in the order of the samples' keys."""
    with tarfile.open(folder / "train" / "000000.tar") as tar:
        found = {member.name: member.size for member in tar.getmembers() if member.name.endswith(".txt")}
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("build", [text.build, text.build_documents])
def test_a_chunk_has_2048_bytes_where_nothing_is_said_and_may_have_4(
    tmp_path: Path, build: Callable[..., object]
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * 4999}) + "\n")
    build({"train": [tmp_path / "a.jsonl"]}, tmp_path / "out")
    assert lengths(tmp_path / "out") == [2048, 2048, 904]
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "x" * 9}) + "\n")
    build({"train": tmp_path / "b.jsonl"}, tmp_path / "small", num_bytes=4)
    assert lengths(tmp_path / "small") == [4, 4, 2]


def test_files_of_a_folder_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name, content in (("b/a.txt", "1"), ("a.ndjson", '{"text": "22"}'), ("c.json", '{"text": "4444"}')):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(content)
    text.build({"train": tmp_path / "in"}, tmp_path / "out")
    assert lengths(tmp_path / "out") == [3, 1, 5]
    # A list is read in the order in which it is given.
    text.build({"train": [tmp_path / "in/c.json", tmp_path / "in/b/a.txt"]}, tmp_path / "listed")
    assert lengths(tmp_path / "listed") == [5, 1]


def test_documents_between_tags_are_their_lines_without_the_tags(tmp_path: Path) -> None:
    (tmp_path / "wiki_00").write_text('\n<doc id="1">\nTitle\n\nA line.\n</doc>\n<doc id="2">\nB\n</doc>\n')
    text.build_documents({"train": [tmp_path / "wiki_00"]}, tmp_path / "out")
    assert lengths(tmp_path / "out") == [len("\nTitle\n\nA line.\nB\n")]
    assert list((tmp_path / "out" / ".build").glob("text.*")) == []
    (tmp_path / "wiki_01").write_text('Title\n<doc id="1">\n</doc>\n')
    with pytest.raises(ValueError, match=r"wiki_01: expected <doc .*> or JSON lines.*got 'Title"):
        text.build_documents({"train": [tmp_path / "wiki_01"]}, tmp_path / "other")
