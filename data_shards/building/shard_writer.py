"""Rows to one tar file: the same bytes for the same rows, on any machine and at any time.

    00000042.jpg   header of 512 bytes, content, zeros up to a multiple of 512
    00000042.wav   the members of a row stand together, sorted by suffix; the key is the row's line in its table
    00000042.cls   then its label
    00000042.json  then all else that is known of it
    00000057.jpg   the next row of this shard
    ...
    1024 zeros     the end

Headers hold no owner and no time, which would differ with who builds, and when.
"""

import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_shards.building.raw_sample import Content, Row
from data_shards.files import atomic
from data_shards.files.plugin_files import PluginError, fault_in_sample
from data_shards.files.quoting import cut
from data_shards.format.shard_table import kind_of
from data_shards.format.tar_walk import MAX_MEMBER_BYTES
from data_shards.loading.quarantine import one_line
from data_shards.modalities.decoding.flow import pair
from data_shards.modalities.kinds.catalogue import held_by
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.modality import select

# Two blocks, as POSIX asks: of one, GNU tar warns.
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Fault:
    """A row that was left out, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Written:
    """A row that is in the shard."""

    row: Row
    kind: str
    """The suffixes of the members that it turned out to have, as kind_of() joins them."""


def write_shard(rows: Sequence[Row], path: Path) -> tuple[list[Written], list[Fault]]:
    """Write the rows that can be read and decoded as one tar; return those and the faults of the others.

    Written beside and renamed: under its own name a shard is complete. Raises ValueError where the disk refuses.
    """
    written: list[Written] = []
    faults: list[Fault] = []
    with written_beside(path) as file:
        for row in rows:
            try:
                # All members are decoded before the first is written: a row whose second member is bad leaves no half
                # sample.
                members = dict(_members(row))
            except PluginError:
                raise
            except ValueError as error:
                faults.append(Fault(row.line, str(error)))
                continue
            members |= dict(_notes(row))
            for extension, data in members.items():
                _append(file, f"{row.line:08d}.{extension}", data)
            written.append(Written(row, kind_of(members)))
        file.write(END_OF_TAR)
    return written, faults


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside `path` that takes its name, synced, when the block ends; ValueError where the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.written_beside(path) as file:
            yield file
    except OSError as error:
        remedy = "free space or choose another folder, then run the same command again: finished shards are kept"
        raise ValueError(f"{path}: cannot be written ({error.strerror}); {remedy}") from error


def _members(row: Row) -> Iterator[tuple[str, bytes]]:
    """Yield (suffix, bytes) of each member; ValueError names the file that is bad, and why."""
    # Sorted: the order of a table's columns must not change the bytes of a shard.
    contents = sorted(row.members, key=lambda content: content.extension)
    found = [(content.extension, _checked_bytes(content)) for content in contents]
    origins = ", ".join(content.origin for content in contents)
    # A silent video or an empty text takes nothing else with it, but a sample of nothing is no sample.
    if found and all(data is None for _, data in found):
        raise ValueError(f"{origins}: holds no modality")
    there = {extension: data for extension, data in found if data is not None}
    # Each frame can be decoded by itself; that they are of one size only shows when they are put together.
    if frames := select(FlowConfig(), there):
        try:
            pair(frames)
        except Exception as error:  # as of a single file
            raise ValueError(f"{origins}: {one_line(error)}") from error
    yield from there.items()


def _notes(row: Row) -> Iterator[tuple[str, bytes]]:
    """Yield label, weight and further labels as members, where there is something to note."""
    if row.label is not None:
        yield "cls", str(row.label).encode()
    notes: dict[str, object] = {**row.fields}
    if row.labels:
        notes["labels"] = list(row.labels)
    if row.named_labels:
        notes["named_labels"] = dict(row.named_labels)
    if row.values:
        notes["values"] = {name: [_known(number) for number in numbers] for name, numbers in row.values.items()}
    if row.weight != 1:
        notes["weight"] = row.weight
    if notes:
        # Sorted: the order in which a source fills the record must not change the bytes of a shard.
        yield "json", json.dumps(notes, sort_keys=True).encode()


def _known(number: float) -> float | None:
    # JSON has no NaN; null is what every reader takes for a number that is not known.
    return None if math.isnan(number) else number


def _checked_bytes(content: Content) -> bytes | None:
    try:
        return _decodable(content)
    except OSError as error:
        raise ValueError(f"{content.origin}: {error.strerror or one_line(error)}") from error
    except Exception as error:  # whatever the bytes of one file do to a decoder, that row is bad and no other
        if fault := fault_in_sample(error):
            raise fault from error
        raise ValueError(f"{content.origin}: {one_line(error)}") from error


def _decodable(content: Content) -> bytes | None:
    held = held_by(content.extension)
    if held is None:
        raise ValueError(f"files of kind .{cut(content.extension)} are not read; convert it")
    # By its size on the disk: 100 GB must not be read to be refused.
    if content.num_bytes > MAX_MEMBER_BYTES:
        raise ValueError(f"{content.num_bytes} bytes; a file of a sample has at most {MAX_MEMBER_BYTES}")
    data = content.read()
    if data is not None:
        modality, role = held
        # Decoded whole and thrown away: what fails here would be a bad sample of every run.
        modality.decoded_shape(role, data)
    return data


def _append(file: BinaryIO, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o644
    # Owner, group and time stay 0: who built a shard and when must not change its hash.
    file.write(header.tobuf(tarfile.USTAR_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
