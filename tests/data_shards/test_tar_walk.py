"""The members of a tar, header by header: where they lie, what is none, and at which byte something is wrong."""

import re
from pathlib import Path

import pytest

from data_shards.format import tar_walk
from data_shards.format.tar_walk import Entry, walk

END = bytes(1024)


def header(
    name: bytes,
    length: int = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    size: bytes = b"",
) -> bytes:
    """One block, with its checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = (size or b"%011o\0" % length).ljust(12, b"\0")
    block[156:157] = kind
    block[257 : 257 + len(magic)] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, content: bytes, kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, len(content), kind, **fields) + content + bytes(-len(content) % 512)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    body = b""
    for record in records:
        # The number counts its own digits.
        length = next(n for n in range(len(record), len(record) + 9) if len(b"%d %s\n" % (n, record)) == n)
        body += b"%d %s\n" % (length, record)
    return member(b"pax", body, kind)


def entries(path: Path, content: bytes) -> list[Entry]:
    path.write_bytes(content)
    return list(walk(path))


GOOD = {
    "sizes": (
        member(b"a", b"") + member(b"b", b"x" * 512) + member(b"c", b"x" * 513) + member(b"d", b"x") + END,
        [("a", 512, 0), ("b", 1024, 512), ("c", 2048, 513), ("d", 3584, 1)],
    ),
    "kinds": (
        member(b"a", b"1", b"\0") + member(b"b", b"2", b"7") + member(b"c/", b"", b"5") + member(b"d/", b"", b"\0")
        + member(b"e", b"3") + END,
        [("a", 512, 1), ("b", 1536, 1), ("e", 3584, 1)],
    ),
    "what says nothing": (
        pax(b"comment=x", kind=b"g") + member(b"link", b"x" * 600, b"K") + member(b"a", b"1") + END,
        [("a", 3072, 1)],
    ),
    "pax": (
        pax(b"mtime=1.5", b"path=deep/name") + member(b"a", b"1") + member(b"b", b"2") + END,
        [("deep/name", 1536, 1), ("b", 2560, 1)],
    ),
    "size of pax": (
        pax(b"size=600") + header(b"a", 0) + b"x" * 600 + bytes(424) + member(b"b", b"2") + END,
        [("a", 1536, 600), ("b", 3072, 1)],
    ),
    "two extended headers": (
        member(b"long", b"of gnu\0", b"L") + pax(b"size=1") + header(b"a", 0) + b"x".ljust(512, b"\0") + END,
        [("of gnu", 2560, 1)],
    ),
    "prefix": (
        member(b"name", b"1", prefix=b"folder") + member(b"name", b"2", magic=b"ustar  \0", prefix=b"times") + END,
        [("folder/name", 512, 1), ("name", 1536, 1)],
    ),
    "binary size": (member(b"a", b"123", size=b"\x80" + (3).to_bytes(11, "big")) + END, [("a", 512, 3)]),
    "names": (
        member(b"./a", b"1") + member("ü 1".encode(), b"2") + member(b"BZh.txt", b"3") + END,
        [("a", 512, 1), ("ü 1", 1536, 1), ("BZh.txt", 2560, 1)],
    ),
    "one block of zeros": (member(b"a", b"1") + bytes(512), [("a", 512, 1)]),
    "many zeros": (member(b"a", b"1") + bytes(3 << 20), [("a", 512, 1)]),
    "nothing": (END, []),
}  # fmt: skip


@pytest.mark.parametrize("what", GOOD)
def test_members_lie_where_they_are_said_to(tmp_path: Path, what: str) -> None:
    content, expected = GOOD[what]
    assert entries(tmp_path / "a.tar", content) == [Entry(*each) for each in expected]


def test_a_tar_within_a_tar_is_read_in_its_place(tmp_path: Path) -> None:
    inner = member(b"a", b"1") + member(b"b", b"2") + END
    path = tmp_path / "outer.tar"
    path.write_bytes(member(b"x", b"0") + member(b"inner.tar", inner) + member(b"y", b"9") + END)
    outer = list(walk(path))
    assert outer[1] == Entry("inner.tar", 1536, len(inner))
    assert list(walk(path, outer[1])) == [Entry("a", 2048, 1), Entry("b", 3072, 1)]
    # The next member of the outer tar is none of the inner one.
    shorter = Entry("inner.tar", 1536, len(inner) - len(END))
    with pytest.raises(ValueError, match=r"outer\.tar/inner\.tar: ends at byte 3584 without an end-of-archive block"):
        list(walk(path, shorter))


A = member(b"a", b"1")
BAD = {
    "cut header": (A + A[:300], "is cut inside the header at byte 1024"),
    "cut content": (A + member(b"b", b"x" * 900)[:700], "is cut inside member 'b': 2436 bytes expected, 1724 there"),
    "no end": (A, "ends at byte 1024 without an end-of-archive block"),
    "empty": (b"", "ends at byte 0 without an end-of-archive block"),
    "half an end": (A + bytes(100), "ends at byte 1124 without an end-of-archive block"),
    "announced": (A + pax(b"path=x") + END, "ends at byte 2048 where an extended header announced a member"),
    "announced by what says nothing": (A + pax(b"a=x", kind=b"g") + END, "ends at byte 2048 where an extended header"),
    "joined": (A + bytes(512) + A + END, "continues after its end at byte 1024 (joined with `cat`?)"),
    "joined late": (A + bytes(2 << 20) + A, f"continues after its end at byte {1024 + (2 << 20)} (joined"),
    "checksum": (A + A.replace(b"a", b"b", 1) + END, "has no valid tar header at byte 1024: it is damaged"),
    "checksum that begins otherwise": (A[:148] + b"x" + A[149:] + END, "has no valid tar header at byte 0: it is"),
    "digits": (A + member(b"b", b"", size=b"12x") + END, "has no valid tar header at byte 1024: it is damaged"),
    "digit of eight": (member(b"b", b"", size=b"18") + END, "has no valid tar header at byte 0: it is damaged"),
    "type": (A + header(b"b", 0, b"9") + END, "has a member of unknown type b'9' at byte 1024"),
    "encoding": (A + member(b"\xff", b"") + END, "has a name that is not UTF-8 at byte 1024"),
    "control": (member(b"a\x1bb", b"") + END, r"member 'a\x1bb' has control characters in its name"),
    "absolute": (member(b"/a", b"") + END, "member '/a' has a name that leaves its folder"),
    "above": (member(b"a/../../b", b"") + END, "member 'a/../../b' has a name that leaves its folder"),
    "path of pax": (pax(b"path=../b") + A + END, "member '../b' has a name that leaves its folder"),
    "sparse": (pax(b"GNU.sparse.major=1") + A + END, "has a sparse file at byte 512; pack it again without --sparse"),
    "size of pax": (pax(b"size=x") + A + END, "has a damaged pax header at byte 512"),
    "lying record": (member(b"p", b"99 path=x\n", b"x") + A + END, "has a damaged pax header at byte 512"),
    "record without a number": (member(b"p", b"path=x\n", b"x") + A + END, "has a damaged pax header at byte 512"),
    "record without a value": (member(b"p", b"7 path\n", b"x") + A + END, "has a damaged pax header at byte 512"),
    "record of no length": (member(b"p", b"0 path=x\n", b"x") + A + END, "has a damaged pax header at byte 512"),
    "record without an end": (member(b"p", b"9 path=xy", b"x") + A + END, "has a damaged pax header at byte 512"),
    "extended header behind the end": (header(b"p", 600, b"x") + bytes(512), "is cut inside member 'p': 1112 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_told_with_its_byte(tmp_path: Path, what: str) -> None:
    content, sentence = BAD[what]
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/a.tar: {sentence}")):
        entries(tmp_path / "a.tar", content)


@pytest.mark.parametrize(
    ("kind", "called"),
    [
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"3", "a device"),
        (b"4", "a device"),
        (b"6", "a pipe"),
        (b"S", "a sparse file"),
        (b"M", "a part of a file that continues in another tar"),
    ],
)
def test_what_is_no_regular_file_is_refused_by_its_name(tmp_path: Path, kind: bytes, called: str) -> None:
    with pytest.raises(ValueError, match=f"member 'b' is {called}; only regular files are read"):
        entries(tmp_path / "a.tar", A + header(b"b", 0, kind) + END)


@pytest.mark.parametrize(
    ("start", "method"),
    [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ", "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ],
)
def test_a_compressed_tar_is_told_by_its_first_bytes(tmp_path: Path, start: bytes, method: str) -> None:
    with pytest.raises(ValueError, match=f"is compressed with {method}; unpack it"):
        entries(tmp_path / "a.tar", start + bytes(600))


def test_members_and_extended_headers_have_a_greatest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, extended = tmp_path / "a.tar", pax(b"path=" + b"x" * 90)
    length = 100 - 1
    monkeypatch.setattr(tar_walk, "MAX_MEMBER_BYTES", length)
    monkeypatch.setattr(tar_walk, "MAX_EXTENDED_HEADER_BYTES", length)
    assert entries(path, extended + member(b"a", b"1" * length) + END) == [Entry("x" * 90, 1536, length)]
    with pytest.raises(ValueError, match="member 'a' has 100 bytes, at most 99 are taken"):
        entries(path, member(b"a", b"1" * 100) + END)
    monkeypatch.setattr(tar_walk, "MAX_EXTENDED_HEADER_BYTES", length - 1)
    with pytest.raises(ValueError, match="has an extended header of 99 bytes at byte 1024"):
        entries(path, A + extended + A + END)
