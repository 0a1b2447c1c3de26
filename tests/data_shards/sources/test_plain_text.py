"""Text files in the state in which people have them."""

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_shards.format.manifest import Manifest
from data_shards.format.tar_index import TarIndex
from data_shards.sources import table, text
from data_shards.sources.parsing import plain_text


def zstd(data: bytes) -> bytes:
    compressed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
    return compressed


def gzipped(data: bytes) -> bytes:
    """The same bytes each time: the clock is not in them."""
    return gzip.compress(data, mtime=0)


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzipped,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom", "utf-16-be-bom")
LINES = ["first", "zwölf Boxkämpfer", "三 🐈", "last"]


def encoded(characters: str, encoding: str) -> bytes:
    if encoding.endswith("-bom"):
        return f"\ufeff{characters}".encode(encoding.removesuffix("-bom"))
    return characters.encode(encoding)


def samples(folder: Path, built: Manifest) -> bytes:
    """The text of all samples in the order of their keys."""
    found = {}
    for shard in built.split("train").shards:
        data, index = (folder / shard.name).read_bytes(), TarIndex.from_tar(folder / shard.name)
        for number, key in enumerate(index.keys):
            offset, length = index.members(number)["txt"]
            found[key] = data[offset : offset + length]
    return b"".join(found[key] for key in sorted(found))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
def test_a_text_is_read_as_it_is_kept(tmp_path: Path, suffix: str, encoding: str) -> None:
    whole = "\n".join(LINES)
    compress = COMPRESSED.get(suffix, bytes)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a.TXT{suffix}").write_bytes(compress(encoded(whole, encoding)))
    records = "".join(json.dumps({"text": line}, ensure_ascii=False) + "\r\n" for line in LINES)
    (tmp_path / "in" / f"b.00000-of-00001.json{suffix}").write_bytes(compress(encoded(records, encoding)))
    told: list[str] = []
    built = text.build({"train": tmp_path / "in"}, tmp_path / "out", num_bytes=8, tell=told.append)
    assert samples(tmp_path / "out", built).decode() == whole + "".join(f"{line}\n" for line in LINES)
    assert told == []
    assert not list((tmp_path / "out" / ".build").glob("text*")), "the copies are gone"


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
def test_compression_is_known_by_the_first_bytes_and_not_by_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(COMPRESSED.get(suffix, bytes)(b"text,label\na,1\nb,0\n"))
    for name in ("table.csv", "table.CSV.gz", "table.csv.zst"):
        found = table.read(path.rename(tmp_path / name))
        path = tmp_path / name
        assert [row.label for row in found.rows] == [1, 0]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("kind", "end"), [("csv", "\n"), ("csv", "\r\n"), ("csv", "\r"), ("jsonl", "\n"), ("json", "\r\n")]
)
def test_a_table_is_read_in_any_encoding_with_any_ends_of_lines(
    tmp_path: Path, encoding: str, kind: str, end: str
) -> None:
    cells = [(line, number % 2) for number, line in enumerate(LINES)]
    rows = ["text,label", *(f"{line},{label}" for line, label in cells)]
    if kind != "csv":
        rows = [json.dumps({"text": line, "label": label}, ensure_ascii=False) for line, label in cells]
    path = tmp_path / f"table.{kind}.gz"
    path.write_bytes(gzipped(encoded("".join(row + end for row in rows), encoding)))
    found = table.read(path)
    assert [row.members[0].read().decode() for row in found.rows] == LINES  # type: ignore[union-attr]
    assert [row.label for row in found.rows] == [0, 1, 0, 1]


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (picture(), r"line 1: byte 0 \(0x89\)"),
        (b"one\ntwo\nth\xffree\n", r"line 3: byte 10 \(0xff\)"),
        ("zwölf".encode("latin-1"), r"line 1: byte 2 \(0xf6\)"),
        ("zwei".encode("utf-16-le"), r"line 1: byte 1 \(0x00\)"),
        (b"one\ntwo\0", r"line 2: byte 7 \(0x00\)"),
        (b"one \xe4\xb8", r"line 1: byte 4 \(0xe4\)"),
        (b"x" * (1 << 20) + b"\n" * 5 + b"\xf0\x9f", r"line 6: byte 1048581 \(0xf0\)"),
        ("\ufeffa\nb".encode("utf-16-le") + b"\x00\xd8", r"line 2: byte 8 \(0x00\) cannot be decoded as UTF-16-LE"),
        (gzipped(gzipped(b"twice")), r"line 1: byte 1 of what is compressed \(0x8b\)"),
        (gzipped(archive()), r"line 1: byte 5 of what is compressed \(0x00\)"),
        (gzipped(b"a text")[:-3], "cannot be unpacked"),
        (bz2.compress(b"a text")[:-3], "cannot be unpacked"),
        (lzma.compress(b"a text")[:-3], "cannot be unpacked"),
        (zstd(b"a text")[:-3], "cannot be unpacked"),
        (lzma.compress(b"a text" * 9)[:30] + b"damage" * 9, "cannot be unpacked"),
        (gzipped(b"a text" * 9)[:12] + b"damage" * 9, "cannot be unpacked"),
    ],
)
def test_what_is_no_text_is_refused_with_file_and_place(tmp_path: Path, data: bytes, place: str) -> None:
    for name in ("a.txt", "b.jsonl"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}: {place}"):
            text.build({"train": tmp_path / name}, tmp_path / "out")
        assert not list(tmp_path.glob("out/.build/text*"))
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(ValueError, match=rf"table.csv: {place}"):
        table.read(tmp_path / "table.csv")


@given(
    characters=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    encoding=st.sampled_from(ENCODINGS),
    block=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_are_the_text_in_utf_8(tmp_path: Path, characters: str, encoding: str, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_text, "_BLOCK_BYTES", block)
        path = tmp_path / "text"
        path.write_bytes(encoded(characters, encoding))
        pieces = list(plain_text.blocks(path))
    # A mark at the start of a text without one is that mark.
    assert b"".join(pieces).decode() == characters.removeprefix("\ufeff" if encoding == "utf-8" else "")
    for piece in pieces:
        piece.decode()


def test_a_line_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "MAX_LINE", 4)
    assert list(plain_text.bounded(io.BytesIO(b"abc\n\nabcd"))) == [b"abc\n", b"\n", b"abcd"]
    with pytest.raises(ValueError, match="line 3: is longer than 4; cut it into several"):
        list(plain_text.bounded(io.StringIO("abc\n\nabcd\n")))


def test_a_word_is_no_mark_of_what_is_compressed(tmp_path: Path) -> None:
    for start in ("BZh is a word", "BZh9 1AY&SY", "PK", "\x1f text"):
        (tmp_path / "a.txt").write_text(start)
        assert plain_text.is_plain(tmp_path / "a.txt")
        assert b"".join(plain_text.blocks(tmp_path / "a.txt")) == start.encode()
    (tmp_path / "empty.bz2").write_bytes(bz2.compress(b""))
    assert not plain_text.is_plain(tmp_path / "empty.bz2")
    assert list(plain_text.blocks(tmp_path / "empty.bz2")) == []


@pytest.mark.parametrize("first", [0x50, 0x5F])
def test_zstd_may_begin_with_a_frame_that_is_skipped(tmp_path: Path, first: int) -> None:
    skipped = bytes([first]) + b"\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    (tmp_path / "a.zst").write_bytes(skipped + zstd(b"a text"))
    assert not plain_text.is_plain(tmp_path / "a.zst")
    assert b"".join(plain_text.blocks(tmp_path / "a.zst")) == b"a text"


def test_zstd_without_its_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zst").write_bytes(zstd(b"a text"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="zstd needs pyarrow: pip install pyarrow, or unpack the file"):
        list(plain_text.blocks(tmp_path / "a.zst"))


def test_a_text_of_a_sample_has_a_greatest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzipped(b"x" * 10))
    member = plain_text.TextFile(str(tmp_path / "a.txt.gz"))
    assert (member.extension, member.origin) == ("txt", str(tmp_path / "a.txt.gz"))
    assert member.num_bytes == (tmp_path / "a.txt.gz").stat().st_size
    monkeypatch.setattr(plain_text, "MAX_MEMBER_BYTES", 10)
    assert member.read() == b"x" * 10
    monkeypatch.setattr(plain_text, "MAX_MEMBER_BYTES", 9)
    with pytest.raises(ValueError, match="unpacks to more than 9 bytes, the limit for a file of a sample"):
        member.read()
    (tmp_path / "empty.txt").touch()
    assert plain_text.TextFile(str(tmp_path / "empty.txt")).read() is None


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.CSV.gz", ".csv"), ("a.csv", ".csv"), ("a.tar.GZ", ".tar"), ("a.gz", ""), ("a.b.txt", ".txt")],
)
def test_the_suffix_of_a_content_is_that_before_the_compression(name: str, suffix: str) -> None:
    assert plain_text.content_suffix(name) == plain_text.content_suffix(Path("x") / name) == suffix
