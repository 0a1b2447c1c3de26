"""Text: files of lines or JSON lines, cut into chunks of a length in bytes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from data_shards.build import BuildOptions, build_table
from data_shards.manifest import Manifest
from data_shards.rows import Row

JSON_LINES = (".jsonl", ".ndjson", ".json")
MAX_CHARACTER_BYTES = 4


def build(files: Mapping[str, Path], out: Path, *, num_bytes: int = 2048, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards of chunks of at most `num_bytes`. `files` maps splits to a text file, or a folder of them.

    A file is one long text: its lines, or of JSON lines the strings under "text", one after the other. It is cut
    between characters, and the last chunk of a file may be short.
    """
    if num_bytes < MAX_CHARACTER_BYTES:
        raise ValueError(f"a chunk of {num_bytes} bytes cannot hold every character; choose at least 4")
    rows: list[Row] = []
    for split, path in files.items():
        for chunk in _chunks(path, num_bytes):
            rows.append(Row(len(rows), (chunk,), split=split))
    return build_table(rows, out, **options)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the text of a stretch of a file; read where it is needed, so that no more than places are kept."""

    path: str
    start: int
    """First byte of the stretch: of JSON lines, that of a line."""
    stop: int
    """Byte after its last."""
    skip: int
    """Bytes of the stretch's text before the chunk."""
    num_bytes: int
    """Of the chunk."""
    is_json: bool
    extension: str = "txt"

    @property
    def origin(self) -> str:
        """File and place."""
        return f"{self.path}, byte {self.start}"

    def read(self) -> bytes:
        """Return the chunk."""
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            stretch = file.read(self.stop - self.start)
        text = b"".join(_texts(stretch.splitlines(keepends=True), self.path)) if self.is_json else stretch
        return text[self.skip : self.skip + self.num_bytes]


def _chunks(path: Path, num_bytes: int) -> Iterator[Chunk]:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    files = (
        sorted(file for file in path.rglob("*") if file.suffix in (".txt", *JSON_LINES)) if path.is_dir() else [path]
    )
    if not files:
        raise ValueError(f"{path}: no .txt or .jsonl file")
    for file in files:
        yield from _of_json_lines(file, num_bytes) if file.suffix in JSON_LINES else _of_text(file, num_bytes)


def _of_text(path: Path, num_bytes: int) -> Iterator[Chunk]:
    end = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start < end:
            file.seek(start)
            length = _between_characters(file.read(num_bytes + 1), num_bytes)
            yield Chunk(str(path), start, start + length, 0, length, is_json=False)
            start += length


def _of_json_lines(path: Path, num_bytes: int) -> Iterator[Chunk]:
    """Cut the texts of the lines as one stream; a chunk knows the lines that it is from."""
    rest, skip, start, stop = b"", 0, 0, 0
    with path.open("rb") as file:
        for line in file:
            (text,) = _texts([line], str(path))
            if not rest:
                start, skip = stop, 0
            stop += len(line)
            rest += text
            while len(rest) > num_bytes:
                length = _between_characters(rest, num_bytes)
                yield Chunk(str(path), start, stop, skip, length, is_json=True)
                rest, skip = rest[length:], skip + length
                if len(rest) <= len(text):
                    # The next chunk begins in this line.
                    start, skip = stop - len(line), len(text) - len(rest)
    if rest:
        yield Chunk(str(path), start, stop, skip, len(rest), is_json=True)


def _between_characters(text: bytes, num_bytes: int) -> int:
    """Return the largest length of at most `num_bytes` that cuts no character of UTF-8 in two."""
    if len(text) <= num_bytes:
        return len(text)
    length = num_bytes
    while length > num_bytes - MAX_CHARACTER_BYTES and text[length] & 0xC0 == 0x80:
        length -= 1
    return length


def _texts(lines: list[bytes], path: str) -> Iterator[bytes]:
    """Yield the text of each JSON line, with a line's end."""
    for line in lines:
        try:
            text = json.loads(line)["text"] if line.strip() else ""
            yield f"{text}\n".encode() if text else b""
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{path}: expected an object with "text" a line, got {line[:60]!r} ({error})') from error
