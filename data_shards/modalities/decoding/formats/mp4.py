"""Checks of the tables of an MP4 file, before a library allocates arrays of the claimed length."""

import os
import re
from collections import Counter
from typing import BinaryIO

import numpy as np

from data_shards.files.quoting import shown

_TABLE = re.compile(rb"stsz|stz2|stts|ctts|stsc|trun|elst|cmov")
_MEDIA = b"mdat"


def refuse_bomb(file: BinaryIO) -> None:
    """Raise ValueError where a table claims more samples than the file has bytes; a few bytes can claim billions.

    The tables are those of ISO/IEC 14496-12: sizes, times and chunks of samples, runs of fragments, edit lists.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    claimed: Counter[bytes] = Counter()
    for header in _without_media(file, num_bytes):
        for match in _TABLE.finditer(header):
            if match[0] == b"cmov":
                raise ValueError("video with a compressed header; convert it, as by ffmpeg -i OLD -c copy NEW.mp4")
            claimed[match[0]] += _num_claimed(match[0], memoryview(header)[match.end() :])
            # Each entry of an edit list may show all samples again.
            shown_again = claimed[b"elst"] * (claimed[b"stsz"] + claimed[b"stz2"])
            # At the first such table: names of tables without end, each with all that follow for entries, cost hours.
            if max(claimed[match[0]], shown_again) > num_bytes:
                raise ValueError(f"video of {num_bytes} bytes claims {shown(dict(claimed))} samples")
    file.seek(0)


def _without_media(file: BinaryIO, num_bytes: int) -> list[bytes]:
    """Return the boxes of the file without those that hold nothing but coded samples."""
    found, place = [], 0
    while place < num_bytes:
        file.seek(place)
        length, name = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        # A length of 0 is up to the end; any other below 8 is damage, which the library will meet as well.
        length = min(length, num_bytes) if length >= 8 else num_bytes
        if name != _MEDIA:
            file.seek(place)
            found.append(file.read(length))
        place += length
    return found


def _num_claimed(name: bytes, body: memoryview) -> int:
    if name in (b"stsz", b"stz2"):
        return int.from_bytes(body[8:12], "big")
    num_entries, entries = int.from_bytes(body[4:8], "big"), body[8:]
    if name in (b"trun", b"elst"):
        return num_entries
    # Pairs of a number of samples and what they share, or triples that have it in the middle.
    columns, column = (3, 1) if name == b"stsc" else (2, 0)
    rows = min(num_entries, len(entries) // (4 * columns))
    table = np.frombuffer(entries[: 4 * columns * rows], ">u4").reshape(-1, columns)
    # An entry of no samples takes time all the same.
    return max(rows, int(table[:, column].sum(dtype=np.int64)))
