"""Targets on their way from the shards into batches."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_shards.batch import Batch
from data_shards.build import build_table
from data_shards.config import DataConfig, ImageConfig, TextConfig
from data_shards.open import train_loader
from data_shards.rows import Literal, Row
from data_shards.transform_config import MaskingConfig, MixConfig


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        Row(line, (Literal(png(line), "png"), Literal(b"some words here", "txt")), label=line % 3, labels=(3,))
        for line in range(24)
    ]
    build_table(rows, tmp_path, label_names="abcd", samples_per_shard=6)
    return tmp_path


def first_batch(folder: Path, config: DataConfig, rank: int = 0, world_size: int = 1) -> Batch:
    config = replace(config, shards=str(folder), lanes=2, window=4)
    with train_loader(config, seed=0, global_batch=12, rank=rank, world_size=world_size) as loader:
        return loader(0)


def test_several_labels_are_a_vector(folder: Path) -> None:
    batch = first_batch(folder, DataConfig(image=ImageConfig(4, 4), multi_label=True))
    for key, target in zip(batch.keys, batch.targets["label"].tolist(), strict=True):
        expected = [0.0, 0.0, 0.0, 1.0]
        expected[int(key) % 3] = 1.0
        assert target == expected


def test_mixed_batches_do_not_depend_on_the_number_of_ranks(folder: Path) -> None:
    config = DataConfig(image=ImageConfig(4, 4), mix=MixConfig(mixup_alpha=1.0))
    plain = first_batch(folder, DataConfig(image=ImageConfig(4, 4)))
    alone = first_batch(folder, config)
    assert not torch.equal(plain.arrays["image"], alone.arrays["image"])
    for world_size in (2, 3, 6):
        parts = [first_batch(folder, config, rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat([part.arrays["image"] for part in parts]), alone.arrays["image"])
        assert torch.equal(torch.cat([part.targets["label"] for part in parts]), alone.targets["label"])


def test_mixing_needs_an_even_number_of_samples_a_rank(folder: Path) -> None:
    config = DataConfig(image=ImageConfig(4, 4), mix=MixConfig(mixup_alpha=1.0))
    with pytest.raises(
        ValueError, match=r"a global batch of 12 on 4 ranks is not a multiple of 8; change train\.global"
    ):
        first_batch(folder, config, 0, 4)


def test_hidden_words_are_targets_apart_from_the_inputs(folder: Path) -> None:
    batch = first_batch(folder, DataConfig(text=TextConfig(16, masking=MaskingConfig(0.5))))
    assert batch.arrays.keys() == {"text"}
    hidden = batch.targets["text"] != 0
    assert hidden.any(dim=1).all()
    assert torch.equal(hidden, batch.arrays["text"] == 3)


def test_targets_follow_their_batch_into_its_micro_batches(folder: Path) -> None:
    config = DataConfig(image=ImageConfig(4, 4), multi_label=True)
    batch = first_batch(folder, config).to("cpu")
    assert torch.equal(torch.cat([part.targets["label"] for part in batch.micro_batches(3)]), batch.targets["label"])


def test_mixing_needs_images_alone() -> None:
    keys = [key for key, _ in DataConfig(image=ImageConfig(), text=TextConfig(), mix=MixConfig()).problems()]
    assert keys == ["mix"]
    assert not list(DataConfig(image=ImageConfig(), mix=MixConfig()).problems())
