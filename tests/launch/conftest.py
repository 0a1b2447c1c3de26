from pathlib import Path

import pytest

from data_shards.manifest import Manifest, ShardEntry, Shards, Split, write


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return a folder of shards of the digits as far as a manifest and a size tell."""
    folder = tmp_path / "shards"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "000000.tar").write_bytes(b"x" * 100)
    shard = ShardEntry(
        "train/000000.tar",
        64,
        100,
        "0" * 64,
        "0" * 64,
        dict.fromkeys(("image", "audio", "video", "points", "text", "label"), 64),
    )
    write(Manifest({"train": Split(Shards.of([shard]), (6,) * 10)}, tuple("0123456789")), folder)
    return folder
