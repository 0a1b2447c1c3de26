"""Text files (compressed, in UTF-16 or with a byte order mark), read as UTF-8.

What a file is, its first bytes say, never its name. What is not text is refused with the place where it ends to be.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, AnyStr, BinaryIO, TextIO, cast

from data_shards.building.raw_sample import size_on_disk
from data_shards.files.regular_file import open_regular
from data_shards.format.tar_walk import MAX_MEMBER_BYTES
from data_shards.sources.parsing import encoded_bytes

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files, after that of their content."""
MAX_LINE = 1 << 26
"""Characters, or bytes where they are what is read, of a line or a cell; a longer one is refused."""
_BLOCK_BYTES = 1 << 20
_BOMS = (
    # UTF-32 first: its mark begins as that of UTF-16 does.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# As many as bzip2 needs to be told from a word.
_MAGIC_BYTES = 10


def content_suffix(path: Path | str) -> str:
    """Return the suffix of a file's content, in lower case: ".csv" of "a.CSV.gz"."""
    path = Path(path)
    inner = Path(path.stem) if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def refuse_unpacked_twins(paths: Iterable[Path]) -> None:
    """Raise ValueError where a file lies there compressed and unpacked: its texts would be there twice."""
    first: dict[Path, Path] = {}
    for path in paths:
        name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
        if (other := first.setdefault(name, path)) != path:
            raise ValueError(f"{path}: is there twice, also as {other.name}; move one of them elsewhere")


def is_plain(path: Path) -> bool:
    """Return whether the bytes of a text file are its text: not compressed, no byte order mark."""
    with open_regular(path) as file:
        start = file.read(_MAGIC_BYTES)
    return _compression(path) is None and not any(start.startswith(bom) for bom, _ in _BOMS)


def blocks(path: Path) -> Generator[bytes]:
    """Yield the text of a file as UTF-8, cut between characters; ValueError names line and byte of what is not text."""
    with _unpacked(path) as file:
        start = _read(file, 4)
        bom, encoding = next(((bom, name) for bom, name in _BOMS if start.startswith(bom)), (b"", "utf-8"))
        decoder = codecs.getincrementaldecoder(encoding)()
        block, offset, line = start[len(bom) :] + _read(file, _BLOCK_BYTES), len(bom), 1
        while block:
            more = _read(file, _BLOCK_BYTES)
            try:
                text = decoder.decode(block, final=not more)
                # NUL is valid UTF-8 and never text: UTF-16 without a mark has one in every other byte.
                begin = len(text[: text.index("\0")].encode(encoding)) if "\0" in text else None
            except UnicodeDecodeError as error:
                begin = error.start
            if begin is not None:
                line += block[:begin].decode(encoding).count("\n")
                raise _no_text(path, f"line {line}: byte {offset + begin}", f"0x{block[begin]:02x}", encoding)
            if line == 1 and offset == len(bom):
                _refuse_encoded(text)
            if text:
                yield text.encode()
            line += text.count("\n")
            pending, _ = decoder.getstate()
            # Begun again for each block, with the bytes of a character that was cut: positions in errors are then those
            # of the block.
            decoder.reset()
            offset += len(block) - len(pending)
            block = pending + more


def _refuse_encoded(start: str) -> None:
    if kind := encoded_bytes.kind_of(start):
        raise ValueError(f"line 1: begins as {kind}, which is not plain text; write its text as UTF-8, or leave it out")


def _no_text(path: Path, place: str, found: str, encoding: str) -> ValueError:
    unpacked = " of what is compressed" if _compression(path) else ""
    return ValueError(
        f"{place}{unpacked} ({found}) cannot be decoded as {encoding.upper()} text; write the file as UTF-8, as iconv "
        "does, or leave it out"
    )


def lines(path: Path, newline: str | None) -> TextIO:
    """Return the text of a file, opened; `newline` is that of `open`. ValueError as `blocks` raises."""
    return io.TextIOWrapper(io.BufferedReader(_Pieces(blocks(path))), "utf-8", newline=newline)


def bounded(file: IO[AnyStr]) -> Iterator[AnyStr]:
    """Yield the lines of a file; ValueError names one that is longer than any line should be.

    A compressed file of a few kB can hold a line that takes all memory.
    """
    number = 1
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise ValueError(f"line {number}: is longer than {MAX_LINE}; cut it into several")
        yield line
        number += 1


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def close(self) -> None:
        self._pieces.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of text as a member; one of no length is no text, and takes nothing else with it."""

    path: str
    extension: str = "txt"

    @property
    def origin(self) -> str:
        """The path."""
        return self.path

    @property
    def num_bytes(self) -> int:
        """Its size on disk; 0 where it is missing, which `read` reports."""
        return size_on_disk(self.path)

    def read(self) -> bytes | None:
        """Return the text as UTF-8, None where it is empty."""
        text = bytearray()
        for block in blocks(Path(self.path)):
            text += block
            # While it is unpacked: a few kB can unpack to more than the memory.
            if len(text) > MAX_MEMBER_BYTES:
                raise ValueError(f"unpacks to more than {MAX_MEMBER_BYTES} bytes, the limit for a file of a sample")
        return bytes(text) or None


def _read(file: BinaryIO, num_bytes: int) -> bytes:
    try:
        return file.read(num_bytes)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"cannot be unpacked ({error}); copy the file again") from error


def _unpacked(path: Path) -> BinaryIO:
    """Open the file, or what is compressed in it."""
    opener = _compression(path)
    return opener(path) if opener else open_regular(path)


def _compression(path: Path) -> Callable[[Path], BinaryIO] | None:
    """Return what opens a compressed file, by its first bytes; None where it is not compressed."""
    with open_regular(path) as file:
        start = file.read(_MAGIC_BYTES)
    if not start and path.suffix.lower() in COMPRESSED:
        raise ValueError("is empty, and nothing compressed is; copy the file again")
    if start.startswith(b"\x1f\x8b"):
        return lambda path: cast("BinaryIO", gzip.open(path))
    # "BZh" alone could be a word; a block, or the end of an empty file, follows.
    if start.startswith(b"BZh") and start[4:] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return lambda path: cast("BinaryIO", bz2.open(path))
    if start.startswith(b"\xfd7zXZ\0"):
        return lambda path: cast("BinaryIO", lzma.open(path))
    if start.startswith(b"\x28\xb5\x2f\xfd") or (start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5):
        return _open_zstd
    return None


def _open_zstd(path: Path) -> BinaryIO:
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError("zstd needs pyarrow: pip install pyarrow, or unpack the file") from error
    stream: BinaryIO = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    return stream
