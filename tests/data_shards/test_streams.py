"""What a rank is asked for by its share of the batch: pairs that lie on it, memory for the lanes that it reads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.config import DataConfig
from data_shards.format.extents import EXTENT_BYTES
from data_shards.format.manifest import Manifest
from data_shards.loading.streams import live_bytes, train_loader, train_order
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.mixup import MixupConfig


@pytest.mark.parametrize(("global_batch", "world_size"), [(6, 2), (9, 1), (12, 4)])
def test_a_batch_of_pairs_that_would_lie_on_two_ranks_is_refused_before_anything_is_read(
    tmp_path: Path, global_batch: int, world_size: int
) -> None:
    config = DataConfig(str(tmp_path / "none"), inputs={"image": ImageConfig()}, mixup=MixupConfig())
    with pytest.raises(ValueError, match=rf"batch of {global_batch} on {world_size} ranks is not a multiple of"):
        train_loader(config, seed=0, global_batch=global_batch, world_size=world_size)
    with pytest.raises(ValueError, match=r"none/manifest\.json: no such file"):
        train_loader(config, seed=0, global_batch=8 * world_size, world_size=world_size)


def test_a_rank_has_memory_for_the_windows_and_extents_of_its_lanes_alone(
    tmp_path: Path, text_shards: Callable[..., Manifest]
) -> None:
    split = text_shards(tmp_path, [20, 20], "train").split("train")
    config = DataConfig(str(tmp_path), inputs={"text": TextConfig(num_bytes=12)}, lanes=4, window=8)
    order = train_order(config, 0, 8)
    window_bytes = int(8 * split.shards.num_bytes.sum() / 40)
    of_a_lane = window_bytes + 3 * EXTENT_BYTES
    # Of three ranks one reads two of the four lanes, and nobody knows which.
    assert [live_bytes(split, order, ranks) for ranks in (1, 2, 3, 4, 8)] == [
        lanes * of_a_lane for lanes in (4, 2, 2, 1, 1)
    ]
