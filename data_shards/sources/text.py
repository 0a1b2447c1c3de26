"""Text: files of lines or JSON lines, compressed or not, split into chunks of a length in bytes.

    lines     {"text": "ab"}  {"text": "cdef"}
    stream    a  b  n         c  d  e  f  n         n is the end of a line
    chunks    |------- 0 --------|----- 1 ----|     of 4 bytes

A chunk is a place and no bytes, so that texts larger than the memory can be cut: chunk 1 starts in the second line, and
skips one byte of its text.
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

from data_shards.building.build_claim import refuse_another_origin
from data_shards.building.builder import BuildOptions, Tell, build_table
from data_shards.building.raw_sample import Row
from data_shards.building.shard_writer import written_beside
from data_shards.files.quoting import shown
from data_shards.format.manifest import Manifest
from data_shards.sources.parsing import plain_text
from data_shards.sources.parsing.cells import json_object
from data_shards.sources.parsing.folder_files import HIDDEN, is_hidden, passed_over, suffix_of, walk

JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".txt", *JSON_LINES)
MAX_CHARACTER_BYTES = 4


def build(
    files: Mapping[str, Path | Sequence[Path]], out: Path, *, num_bytes: int = 2048, **options: Unpack[BuildOptions]
) -> Manifest:
    """Build shards of chunks of at most `num_bytes`. `files` maps splits to a text file, a folder of them, or a list.

    A file is one long text: its lines, or of JSON lines the strings under "text", one after the other. It is cut
    between characters, and the last chunk of a file may be short. What is compressed, or not in UTF-8, is written as
    UTF-8 below OUT/.build until the shards are there. Raises ValueError with file and place where something is no text.
    """
    return _build(files, out, num_bytes, options, documents=False)


def build_documents(
    files: Mapping[str, Path | Sequence[Path]], out: Path, *, num_bytes: int = 2048, **options: Unpack[BuildOptions]
) -> Manifest:
    """Build shards of chunks of WikiExtractor's files: JSON lines, or the text between <doc ...> and </doc>."""
    return _build(files, out, num_bytes, options, documents=True)


def _build(
    files: Mapping[str, Path | Sequence[Path]],
    out: Path,
    num_bytes: int,
    options: BuildOptions,
    *,
    documents: bool,
) -> Manifest:
    if num_bytes < MAX_CHARACTER_BYTES:
        raise ValueError(f"a chunk of {num_bytes} bytes cannot hold every character; choose at least 4")
    refuse_another_origin(out)
    rows: list[Row] = []
    with _scratch(out) as scratch:
        for split, path in files.items():
            found = list(_files(path, options.get("tell")) if isinstance(path, Path) else path)
            plain_text.refuse_unpacked_twins(found)
            for file in found:
                is_json = _is_json(file, documents=documents)
                plain = _plain(file, scratch, in_tags=documents and not is_json)
                for chunk in _chunks(plain, num_bytes, file, is_json=is_json):
                    rows.append(Row(len(rows), (chunk,), split=split))
        return build_table(rows, out, **options)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the text of a stretch of a file; read where it is needed, so that no more than places are kept."""

    path: str = field(repr=False)
    """The file of its bytes: `original`, or a copy, which has another place in each call."""
    start: int
    """First byte of the stretch: of JSON lines, that of a line."""
    stop: int
    """Byte after its last."""
    skip: int
    """Bytes of the stretch's text before the chunk."""
    num_bytes: int
    """The size of the chunk."""
    is_json: bool
    original: str
    """The file that a person knows."""
    digest: str
    """The hash of the text that a copy holds; empty where there is none."""
    extension: str = "txt"

    @property
    def origin(self) -> str:
        """File and place."""
        return f"{self.original}, byte {self.start}"

    def read(self) -> bytes:
        """Return the chunk."""
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            stretch = file.read(self.stop - self.start)
        # A chunk of JSON lines may begin in the middle of one text and end in another: the lines are parsed again.
        text = b"".join(map(_text, stretch.split(b"\n"))) if self.is_json else stretch
        return text[self.skip : self.skip + self.num_bytes]


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Give the folder for copies of what is not plain, and remove it, with those that killed builds left."""
    # A folder a process: the claim on OUT comes later, and a second build would write over the copies of the first.
    folder = out / ".build" / f"text.{os.getpid()}"
    try:
        yield folder
        # Only after a build that ended well: one that was refused, since another is at work here, must leave that one's
        # copies.
        for leftover in folder.parent.glob("text.*"):
            shutil.rmtree(leftover, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(path: Path, tell: Tell | None) -> Iterator[Path]:
    """Yield a file, or those of text below a folder, in the order of their paths."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not path.is_dir():
        yield path
        return
    found: list[Path] = []
    passed: Counter[str] = Counter()
    for parent, names, files in walk(path):
        for name in files:
            if is_hidden((*names, name)):
                passed[HIDDEN] += 1
            elif plain_text.content_suffix(name) in SUFFIXES:
                found.append(Path(parent, name))
            else:
                passed[suffix_of(name)] += 1
    sentence = passed_over(passed, f"text ({', '.join(SUFFIXES)})") if passed else ""
    if not found:
        raise ValueError(f"{path}: no .txt or .jsonl file" + (f"; {sentence}" if passed else ""))
    if tell and passed:
        tell(f"{path}: {sentence}")
    yield from sorted(found)


def _is_json(file: Path, *, documents: bool) -> bool:
    """Return whether a file has JSON lines: by its suffix; of WikiExtractor's, which have none, by its beginning."""
    if not documents:
        return plain_text.content_suffix(file) in JSON_LINES
    try:
        return next(plain_text.blocks(file), b"").lstrip().startswith(b"{")
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _between_tags(file: Path) -> Iterator[bytes]:
    """Yield the lines of WikiExtractor's documents; ValueError where the file does not begin with one."""
    is_begun = False
    with plain_text.lines(file, newline="\n") as text:
        for line in plain_text.bounded(text):
            is_begun = is_begun or line.startswith("<doc ")
            if line.strip() and not is_begun:
                raise ValueError(f"expected <doc ...> or JSON lines, as WikiExtractor writes them, got {shown(line)}")
            if not line.startswith(("<doc ", "</doc>")):
                yield line.encode()


def _plain(file: Path, scratch: Path, *, in_tags: bool = False) -> Path:
    """Return the file, or a copy in UTF-8 where its bytes are not its text; ValueError where it is no text."""
    try:
        if plain_text.is_plain(file) and not in_tags:
            # To find what is no text now, with its line and byte, and not in a worker in the middle of the build.
            for _ in plain_text.blocks(file):
                pass
            return file
        digest = hashlib.sha256()
        with written_beside(scratch / "text") as copy:
            for block in _between_tags(file) if in_tags else plain_text.blocks(file):
                digest.update(block)
                copy.write(block)
    except OSError as error:
        raise ValueError(
            f"{file}: cannot be read ({error.strerror}); correct its permissions, or leave it out"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    # The name tells the chunks of another text apart: an interrupted build goes on only where the text is the same.
    return (scratch / "text").replace(scratch / digest.hexdigest())


def _chunks(
    path: Path, num_bytes: int, original: Path | None = None, *, is_json: bool | None = None
) -> Iterator[Chunk]:
    """Yield the chunks of a file of plain text; `original` is the one that a person knows."""
    original = original or path
    is_json = _is_json(original, documents=False) if is_json is None else is_json
    try:
        yield from _of_json_lines(path, num_bytes, original) if is_json else _of_text(path, num_bytes, original)
    except (ValueError, OSError) as error:
        raise ValueError(f"{original}: {error}") from error


def _digest(path: Path, original: Path) -> str:
    return "" if path == original else path.name


def _of_text(path: Path, num_bytes: int, original: Path) -> Iterator[Chunk]:
    end = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start < end:
            file.seek(start)
            # One byte more than is taken: it tells whether the last character goes on.
            length = _between_characters(file.read(num_bytes + 1), num_bytes)
            yield Chunk(str(path), start, start + length, 0, length, False, str(original), _digest(path, original))
            start += length


def _of_json_lines(path: Path, num_bytes: int, original: Path) -> Iterator[Chunk]:
    """Cut the texts of the lines as one stream; a chunk knows the lines that it is from."""
    rest, skip, start, stop = b"", 0, 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(plain_text.bounded(file), start=1):
            text = _text(line, number)
            if not rest:
                start, skip = stop, 0
            stop += len(line)
            rest += text
            while len(rest) > num_bytes:
                length = _between_characters(rest, num_bytes)
                yield Chunk(str(path), start, stop, skip, length, True, str(original), _digest(path, original))
                rest, skip = rest[length:], skip + length
                if len(rest) <= len(text):
                    # The next chunk begins in this line.
                    start, skip = stop - len(line), len(text) - len(rest)
    if rest:
        yield Chunk(str(path), start, stop, skip, len(rest), True, str(original), _digest(path, original))


def _between_characters(text: bytes, num_bytes: int) -> int:
    """Return the largest length of at most `num_bytes` that cuts no character of UTF-8 in two."""
    if len(text) <= num_bytes:
        return len(text)
    length = num_bytes
    # In UTF-8 a byte 10xxxxxx continues a character, and at most three of them follow its first.
    while length > num_bytes - MAX_CHARACTER_BYTES and text[length] & 0xC0 == 0x80:
        length -= 1
    return length


def _text(line: bytes, number: int = 0) -> bytes:
    """Return the text of a JSON line, with a line's end; nothing for a blank line, or a text that is null or empty."""
    if not line.strip():
        return b""
    fields = json_object(line.decode(), number)
    if "text" not in fields:
        raise ValueError(f'line {number}: expected an object with "text", got {shown(fields)}')
    text = fields["text"]
    if not isinstance(text, str | None):
        raise ValueError(f'line {number}: expected a string as "text", got {shown(text)}')  # noqa: TRY004 - a user's slip
    # With a line's end: the last word of a text must not run into the first of the next.
    return f"{text}\n".encode() if text else b""
