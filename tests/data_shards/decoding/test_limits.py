"""Where decoding ends is what the page on building shards says."""

import re
from pathlib import Path

import pytest

from data_shards.format.tar_walk import MAX_MEMBER_BYTES
from data_shards.modalities.decoding import audio, image, points, video
from data_shards.modalities.decoding.formats import meshes

PAGE = Path(__file__).parents[3] / "docs" / "building_shards.md"
UNITS = {"": 1, "Mi": 1 << 20, "MiB": 1 << 20, "GiB": 1 << 30, "kHz": 1000}
LIMITS = {
    "image, frame": [("Mi pixels", image.MAX_PIXELS), ("scans", image.MAX_SCANS)],
    "recording": [("samples", audio.MAX_SAMPLES), ("kHz", audio.MAX_RATE)],
    "clip": [("GiB of coded bytes", video.MAX_CLIP_BYTES), ("pixels of all", video.MAX_DECODED_PIXELS)],
    "cloud": [("MiB", points.MAX_BYTES), ("columns", points.MAX_COLUMNS)],
    "mesh": [("vertices and faces", meshes.MAX_ELEMENTS), ("MiB of text", meshes.MAX_TEXT_BYTES)],
    "any file in a shard": [("GiB", MAX_MEMBER_BYTES)],
}


@pytest.mark.parametrize("what", LIMITS)
def test_the_limits_of_decoding_are_those_of_the_page(what: str) -> None:
    [row] = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {what} |")]
    for words, limit in LIMITS[what]:
        found = re.findall(rf"(\d+)(?:\^(\d+))? {re.escape(words)}", row)
        assert limit in [int(base) ** int(power or 1) * UNITS.get(words.split()[0], 1) for base, power in found]
