"""The members of a tar, read from its headers alone. Every deviation from a plain, whole tar is refused by name.

tarfile would take a tar that was cut between two members for a whole one, and is ten times slower. Here a tar must end
with its end-of-archive block; members are regular files with safe names. ustar, GNU and pax headers are understood.

    | header | content, padded to 512 | header | content ... |  0 0 0  |  zeros to the end of the file
       'x' or 'L': the content is the next member's name or size      end of archive: without it the tar was cut short
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import category

from data_shards.files.quoting import shown
from data_shards.files.regular_file import open_regular

BLOCK = 512
MAX_MEMBER_BYTES = 1 << 30
"""A larger member is refused by its header: it is read whole into memory, on every rank."""
# Sixteen times the longest path of Linux: what claims more is damage, and would be read into memory.
MAX_EXTENDED_HEADER_BYTES = 1 << 16

# "\0" is what tars before POSIX write for a file; "7" is a contiguous file, which POSIX reads as a regular one.
_REGULAR, _FOLDER = (b"0", b"\0", b"7"), b"5"
_NAMES_NEXT, _PASSED_OVER = (b"L", b"x"), (b"K", b"g")
"""Extended headers: those that give the next member its name or size, and those that say nothing we need."""
_REFUSED = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_REFUSED |= {b"S": "a sparse file", b"M": "a part of a file that continues in another tar"}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in a tar."""

    name: str
    offset: int
    """The position of its first byte in the tar."""
    length: int


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    length: int
    kind: bytes


def walk(path: Path, within: Entry | None = None) -> Iterator[Entry]:
    """Yield the regular files of a tar in their order; ValueError names the tar and the place of what is wrong.

    `within` is a member that is a tar itself: its files are yielded, with their positions in the outer tar.
    """
    try:
        with open_regular(path) as file:
            start = within.offset if within else 0
            stop = start + within.length if within else os.fstat(file.fileno()).st_size
            yield from _walk(file.fileno(), start, stop)
    except ValueError as error:
        raise ValueError(f"{path}{f'/{within.name}' if within else ''}: {error}") from error


def _walk(descriptor: int, start: int, num_bytes: int) -> Iterator[Entry]:
    place, is_announced = start, False
    extended: dict[str, str] = {}
    # Ends at a block of zeros, or at the empty block behind the last byte; which of the two it was is asked after the
    # loop.
    while any(block := os.pread(descriptor, max(0, min(BLOCK, num_bytes - place)), place)):
        _refuse_compressed(block, is_first=place == start)
        header = _parse(block, place, num_bytes)
        begin, place = place + BLOCK, place + BLOCK + -(-header.length // BLOCK) * BLOCK
        is_announced = header.kind in _NAMES_NEXT + _PASSED_OVER
        if header.kind in _NAMES_NEXT:
            extended |= _extended(header, os.pread(descriptor, header.length, begin), begin)
        elif header.kind not in _PASSED_OVER:
            name = _safe(extended.get("path", header.name))
            length = int(extended.get("size", header.length))
            # A pax header gives the size of a member above 8 GB, which has no room in the octal digits of its own
            # header.
            if length != header.length:
                place = begin + -(-length // BLOCK) * BLOCK
            extended = {}
            # Tars before POSIX have no type for a folder: its name ends with a slash.
            if header.kind in _REGULAR and not name.endswith("/"):
                yield Entry(name, begin, _taken(name, length, begin, num_bytes))
            elif header.kind in _REFUSED:
                raise ValueError(
                    f"member {shown(name)} is {_REFUSED[header.kind]}; only regular files are read: pack it again"
                )
    if len(block) < BLOCK:
        raise ValueError(f"ends at byte {num_bytes} without an end-of-archive block: it was cut short; copy it again")
    # Zeros where a member was announced: the tar was cut there, and padded by whoever copied it.
    if is_announced:
        raise ValueError(f"ends at byte {place} where an extended header announced a member; copy it again")
    _check_rest_is_zero(descriptor, place, num_bytes)


def _refuse_compressed(block: bytes, *, is_first: bool) -> None:
    for magic, method in _COMPRESSED.items():
        if is_first and block.startswith(magic):
            raise ValueError(f"is compressed with {method}; unpack it: a compressed tar cannot be read from the middle")


def _parse(block: bytes, place: int, num_bytes: int) -> _Header:
    if len(block) < BLOCK:
        raise ValueError(f"is cut inside the header at byte {place}; copy it again")
    # The checksum counts its own eight bytes as spaces.
    if _number(block[148:156], place) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise ValueError(f"has no valid tar header at byte {place}: it is damaged or not a tar; copy it again")
    name = _text(block[:100], place)
    # Only of POSIX: GNU's older headers ("ustar  ") keep times where POSIX has the first part of a long name.
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500], place)}/{name}"
    header = _Header(name, _number(block[124:136], place), block[156:157])
    if header.kind not in (*_REGULAR, _FOLDER, *_NAMES_NEXT, *_PASSED_OVER, *_REFUSED):
        raise ValueError(f"has a member of unknown type {header.kind!r} at byte {place}; pack it again as plain files")
    if header.kind in _NAMES_NEXT + _PASSED_OVER:
        if header.length > MAX_EXTENDED_HEADER_BYTES:
            raise ValueError(f"has an extended header of {header.length} bytes at byte {place}; pack it again")
        _taken(name, header.length, place + BLOCK, num_bytes)
    return header


def _taken(name: str, length: int, begin: int, num_bytes: int) -> int:
    if length > MAX_MEMBER_BYTES:
        raise ValueError(
            f"member {shown(name)} has {length} bytes, at most {MAX_MEMBER_BYTES} are taken; split or leave it out"
        )
    if begin + length > num_bytes:
        raise ValueError(
            f"is cut inside member {shown(name)}: {begin + length} bytes expected, {num_bytes} there; copy it again"
        )
    return length


def _number(field: bytes, place: int) -> int:
    if field[0] == 0x80:  # GNU: binary, for what does not fit in octal
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    if not all(48 <= digit < 56 for digit in digits):
        raise ValueError(f"has no valid tar header at byte {place}: it is damaged or not a tar; copy it again")
    return int(digits or b"0", 8)


def _text(field: bytes, place: int) -> str:
    try:
        return field.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"has a name that is not UTF-8 at byte {place}; rename and pack it again") from error


def _safe(name: str) -> str:
    # An index keeps names as lines, and a terminal would obey them.
    if any(category(letter) == "Cc" for letter in name if not letter.isprintable()):
        raise ValueError(f"member {shown(name)} has control characters in its name; pack it again")
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ValueError(f"member {shown(name)} has a name that leaves its folder; pack it again")
    # `tar -C FOLDER .` writes ./ before each name; the same files must have the same keys.
    return name.removeprefix("./")


def _extended(header: _Header, body: bytes, begin: int) -> dict[str, str]:
    """Return the path and size that an extended header gives to the member that follows it."""
    if header.kind == b"L":
        return {"path": _text(body, begin)}
    found: dict[str, str] = {}
    while body.strip(b"\0"):
        length, _, _ = body.partition(b" ")
        # The length is bounded before int() reads it; a record that lies about it ends in the check of the next lines.
        record = body[: int(length)] if length.isdigit() and len(length) < 6 else b""
        keyword, equals, value = record[len(length) + 1 :].partition(b"=")
        if not (equals and record.endswith(b"\n") and len(record) == int(length)):
            raise ValueError(f"has a damaged pax header at byte {begin}; copy it again")
        if keyword.startswith(b"GNU.sparse"):
            raise ValueError(f"has a sparse file at byte {begin}; pack it again without --sparse")
        if keyword in (b"path", b"size"):
            found[keyword.decode()] = _text(value[:-1], begin)
        body = body[len(record) :]
    if not found.get("size", "0").isdecimal():
        raise ValueError(f"has a damaged pax header at byte {begin}; copy it again")
    return found


def _check_rest_is_zero(descriptor: int, place: int, num_bytes: int) -> None:
    while chunk := os.pread(descriptor, max(0, min(1 << 20, num_bytes - place)), place):
        if any(chunk):
            raise ValueError(
                f"continues after its end at byte {place} (joined with `cat`?); pack its members into one tar"
            )
        place += len(chunk)
