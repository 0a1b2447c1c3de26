"""The index agrees with tarfile on whole tars and names what is wrong with every other one."""

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.format.tar_index import TarIndex
from data_shards.format.tar_walk import MAX_MEMBER_BYTES

WriteTar = Callable[..., Path]
TWO = [("a.txt", b"first"), ("a.cls", b"0"), ("b.txt", b"second" * 200), ("b.cls", b"1")]


def header(name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_tarfile_finds_them(tmp_path: Path, form: int) -> None:
    path = tmp_path / "x.tar"
    names = [
        f"{folder}{key}.{extension}" for folder in ("", "d" * 90 + "/") for key in "äb" for extension in ("PNG", "x.y")
    ]
    with tarfile.open(path, "w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("__meta__.json"))
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * number
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    index = TarIndex.from_tar(path)
    assert list(index.keys) == ["ä", "b", "d" * 90 + "/ä", "d" * 90 + "/b"]
    content = path.read_bytes()
    found = {
        f"{key}.{extension}": content[offset : offset + length]
        for sample, key in enumerate(index.keys)
        for extension, (offset, length) in index.members(sample).items()
    }
    assert found == {name.replace("PNG", "png"): bytes([n]) * 300 * n for n, name in enumerate(names)}


def test_the_file_holds_the_whole_index(tmp_path: Path, write_tar: WriteTar) -> None:
    index = TarIndex.from_tar(write_tar(tmp_path / "x.tar", TWO))
    index.write(tmp_path / "x.idx")
    again = TarIndex.read(tmp_path / "x.idx")
    assert again.to_bytes() == index.to_bytes()
    assert again.members(1) == index.members(1)
    assert again.keys == ("a", "b")


@pytest.mark.parametrize("damage", ["cut", "magic", "place", "empty"])
def test_a_damaged_index_is_refused(tmp_path: Path, write_tar: WriteTar, damage: str) -> None:
    data = TarIndex.from_tar(write_tar(tmp_path / "x.tar", TWO)).to_bytes()
    damaged = {
        "cut": data[:-1],
        "magic": b"x" + data[1:],
        "place": data[:56] + b"\xff" * 8 + data[64:],
        "empty": b"",
    }
    (tmp_path / "x.idx").write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"x\.idx: is not an index .*; delete it"):
        TarIndex.read(tmp_path / "x.idx")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cuts", [0, 1]),
        ("cuts", [1, 2]),
        ("cuts", [0, 0, 2]),
        ("starts", [0, 2, 3]),
        ("starts", [0, 0, 4]),
        ("starts", [1, 2, 4]),
        ("offsets", [512, 512, 2048, 4608]),
        ("offsets", [512, 1536, 2560, 1 << 60]),
        ("lengths", [5, 1, 1 << 62, 1]),
        ("extension_ids", [0, 1, 0, 2]),
        ("keys", ["a"]),
    ],
)
def test_an_index_whose_parts_do_not_fit_is_refused(
    tmp_path: Path, write_tar: WriteTar, name: str, values: list[object]
) -> None:
    index = TarIndex.from_tar(write_tar(tmp_path / "x.tar", TWO))
    whole = getattr(index, name)
    changed: object = tuple(values) if name == "keys" else np.array(values, whole.dtype)
    more = {"extent_crcs": np.zeros(len(values) - 1, np.uint32)} if name == "cuts" else {}
    with pytest.raises(ValueError, match="is not an index"):
        TarIndex.from_bytes(replace(index, **{name: changed}, **more).to_bytes())  # type: ignore[arg-type]


def test_an_index_that_cannot_be_made_durable_leaves_the_old_one(
    tmp_path: Path, write_tar: WriteTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    index = TarIndex.from_tar(write_tar(tmp_path / "x.tar", TWO))
    (tmp_path / "x.idx").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        index.write(tmp_path / "x.idx")
    assert (tmp_path / "x.idx").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.idx", "x.tar"]


def test_the_size_of_an_extended_header_is_the_members(tmp_path: Path) -> None:
    path, record = tmp_path / "x.tar", b"12 size=700\n"
    members = [
        header("x", size=len(record), kind=b"x") + record.ljust(512, b"\0"),
        header("a.txt", size=0) + (b"a" * 700).ljust(1024, b"\0"),
        header("b.txt", size=2) + b"bb".ljust(512, b"\0"),
    ]
    path.write_bytes(b"".join(members) + bytes(1024))
    index, content = TarIndex.from_tar(path), path.read_bytes()
    found = {key: index.members(sample)["txt"] for sample, key in enumerate(index.keys)}
    assert {key: content[offset : offset + length] for key, (offset, length) in found.items()} == {
        "a": b"a" * 700,
        "b": b"bb",
    }


@pytest.mark.parametrize("name", ["\u00a0a", "a\u202f", "\u3000", "\U0001f469\u200d\U0001f469", "a\u200b", "\ue000"])
def test_a_name_that_can_be_written_back_is_taken(tmp_path: Path, write_tar: WriteTar, name: str) -> None:
    index = TarIndex.from_tar(write_tar(tmp_path / "x.tar", [(f"{name}.txt", b"x")]))
    index.write(tmp_path / "x.idx")
    assert TarIndex.read(tmp_path / "x.idx").keys == (name,)


def test_more_suffixes_than_an_index_can_number_are_told(
    tmp_path: Path, write_tar: WriteTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_shards.format.tar_index._MAX_EXTENSIONS", 3)
    write_tar(tmp_path / "x.tar", [(f"clip_1.{n:04d}.jpg", b"x") for n in range(4)])
    with pytest.raises(ValueError, match=r"x\.tar: has 4 different suffixes, such as \.0000\.jpg; .* most 3: rename"):
        TarIndex.from_tar(tmp_path / "x.tar")


def faults() -> dict[str, tuple[bytes, str]]:
    """Return tars by what is wrong with them, each with what must be said of it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in TWO:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    good, end = stream.getvalue(), bytes(1024)

    def a(name: str, body: bytes = b"x") -> bytes:
        return header(name, size=len(body)) + body.ljust(512, b"\0")

    flipped = bytearray(good)
    flipped[1024 + 3] ^= 1
    return {
        "cut in a member": (good[: 2048 + 600], "is cut inside member 'b.txt': 3760 bytes expected, 2648 there"),
        "cut in a header": (good[: 1024 + 100], "is cut inside the header at byte 1024"),
        "cut between members": (good[:1024], "ends at byte 1024 without an end-of-archive block"),
        "cut between samples": (good[:2048], "ends at byte 2048 without an end-of-archive block"),
        "nothing": (b"", "ends at byte 0 without an end-of-archive block"),
        "no samples": (end, "holds no samples"),
        "a flipped byte in a header": (bytes(flipped), "has no valid tar header at byte 1024"),
        "interleaved": (a("a.x") + a("b.x") + a("a.y") + a("b.y") + end, "members of sample 'a' are not next to each"),
        "a member twice": (a("a.x") + a("a.X") + end, "sample 'a' has two members .x"),
        "a member of 2 GB": (
            header("a.x", size=2 << 30),
            f"member 'a.x' has {2 << 30} bytes, at most {MAX_MEMBER_BYTES}",
        ),
        "a symbolic link": (header("a.x", kind=tarfile.SYMTYPE, linkname="/etc/passwd") + end, "is a symbolic link"),
        "a hard link": (header("a.x", kind=tarfile.LNKTYPE, linkname="../b") + end, "is a hard link"),
        "a device": (header("a.x", kind=tarfile.CHRTYPE) + end, "is a device"),
        "a sparse file": (header("a.x", kind=tarfile.GNUTYPE_SPARSE) + end, "is a sparse file"),
        "an unknown type": (header("a.x", kind=b"Q") + end, "member of unknown type b'Q'"),
        "a name that leaves": (a("../a.x") + end, "member '../a.x' has a name that leaves its folder"),
        "a line in a name": (a("a\nb.x") + end, "has control characters in its name"),
        "an absolute name": (a("/a.x") + end, "member '/a.x' has a name that leaves its folder"),
        "a bomb of a name": (header("a", kind=b"L", size=1 << 30) + end, "has an extended header of 1073741824 bytes"),
        "compressed": (b"\x1f\x8b" + bytes(510), "is compressed with gzip"),
        "two tars joined": (good + good, "continues after its end"),
        "not a tar": (b"hello" * 500, "has no valid tar header at byte 0"),
    }


@pytest.mark.parametrize("fault", faults())
def test_each_fault_is_named(tmp_path: Path, fault: str) -> None:
    content, sentence = faults()[fault]
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tar: ") as error:
        TarIndex.from_tar(path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
