"""What is no text is no sample of text."""

import bz2
import gzip
import lzma

import pytest

from data_shards.modalities.decoding.text import text


@pytest.mark.parametrize(
    "data",
    # Without the time, by which two workers would call the test by two names.
    [
        gzip.compress(b"a", mtime=0),
        bz2.compress(b"a"),
        lzma.compress(b"a"),
        "caf\u00e9".encode("utf-16"),
        b"caf\xe9",
        b"\xff",
    ],
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not text in UTF-8 at byte"):
        text(data)


def test_text_keeps_its_bytes() -> None:
    data = "caf\u00e9 \u4e3d \U0001f680".encode()
    assert text(memoryview(data)).tobytes() == data
