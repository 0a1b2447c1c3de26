"""The loader gives the order's samples, at any world size and from any step, and ends cleanly."""

import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.manifest import Manifest
from data_shards.loading import streams
from data_shards.loading.batch import Batch
from data_shards.loading.loader.loader import Loader
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig

TextShards = Callable[..., Manifest]
CONFIG = DataConfig(inputs={"text": TextConfig(num_bytes=12)}, lanes=4, window=8)


@pytest.fixture
def folder(tmp_path: Path, text_shards: TextShards) -> Path:
    text_shards(tmp_path, [20, 17, 23], "train")
    text_shards(tmp_path, [5, 6], "test")
    return tmp_path


def open_train(folder: Path, rank: int = 0, world_size: int = 1, config: DataConfig = CONFIG, seed: int = 0) -> Loader:
    config = replace(config, shards=str(folder))
    return streams.train_loader(config, seed=seed, global_batch=12, rank=rank, world_size=world_size)


def open_test(folder: Path, rank: int = 0, world_size: int = 1) -> Loader:
    config = replace(CONFIG, shards=str(folder))
    return streams.eval_loader(config, "test", global_batch=8, rank=rank, world_size=world_size)[0]


def texts(batch: Batch) -> list[str]:
    lengths = batch.lengths["text"].tolist()
    return [
        bytes(byte - 6 for byte in row[:length]).decode()
        for row, length in zip(batch.arrays["text"].tolist(), lengths, strict=True)
    ]


def test_a_batch_holds_the_samples_that_its_keys_name(folder: Path) -> None:
    with open_train(folder) as loader:
        batch = loader(3)
    assert texts(batch) == list(batch.keys)
    assert len(set(batch.keys)) == 12
    assert batch.labels.tolist() == [(int(key[2:5]) + int(key[6:])) % 3 for key in batch.keys]
    assert batch.weights.tolist() == [1.0] * 12
    assert batch.arrays["text"].dtype == torch.int16
    assert [part.index for part in (batch, *batch.micro_batches(2))] == [3, 3, 3]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_ranks_share_a_global_batch_and_a_resume_is_exact(folder: Path, world_size: int) -> None:
    with open_train(folder) as loader:
        uninterrupted = [list(loader(step).keys) for step in range(8)]
    resumed: list[list[str]] = [[], []]
    for rank in range(world_size):
        with open_train(folder, rank, world_size) as loader:
            for step in (6, 7):
                batch = loader(step)
                # What a sample draws in the network goes by its place in the global batch.
                assert batch.first == len(resumed[step - 6])
                resumed[step - 6] += batch.keys
    assert resumed == uninterrupted[6:]


def test_planted_fault_another_seed_gives_other_batches(folder: Path) -> None:
    with open_train(folder) as loader, open_train(folder, seed=1) as other:
        assert loader(0).keys != other(0).keys


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_nothing(folder: Path, num_threads: int) -> None:
    with open_train(folder) as one, open_train(folder, config=replace(CONFIG, num_threads=num_threads)) as other:
        for step in (0, 1, 5, 2):
            torch.testing.assert_close(one(step).arrays, other(step).arrays, rtol=0, atol=0)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_serves_every_sample_once_and_pads_with_weight_0(folder: Path, world_size: int) -> None:
    keys: list[str] = []
    for rank in range(world_size):
        with open_test(folder, rank, world_size) as loader:
            batches = [loader(step) for step in range(2)]
        for batch in batches:
            keys += [key for key in batch.keys if key]
            assert [weight > 0 for weight in batch.weights] == [key != "" for key in batch.keys]
            padding = torch.tensor([key == "" for key in batch.keys])
            assert not batch.arrays["text"][padding].any()
            assert not batch.lengths["text"][padding].any()
            assert batch.num_samples == len(batch.keys) - int(padding.sum())
    assert sorted(keys) == sorted(f"te{shard:03d}_{n:04d}" for shard, count in enumerate((5, 6)) for n in range(count))


def test_no_more_is_prefetched_than_batches_and_bytes_allow(folder: Path) -> None:
    config = replace(
        CONFIG, inputs=CONFIG.inputs | {"text": TextConfig(num_bytes=1 << 15)}, prefetch_batches=10, prefetch_mib=2
    )
    with open_train(folder, config=config) as loader:
        loader(0)
        assert len(loader._coming) == 2  # 12 texts of 64 KiB are 0.75 MiB a batch


def test_closing_ends_the_threads(folder: Path) -> None:
    before = threading.active_count()
    with open_train(folder) as loader:
        loader(0)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_micro_batches_are_equal_parts_of_a_batch(folder: Path) -> None:
    with open_train(folder) as loader:
        batch = loader(0)
    parts = batch.micro_batches(3)
    assert [part.keys for part in parts] == [batch.keys[:4], batch.keys[4:8], batch.keys[8:]]
    torch.testing.assert_close(torch.cat([part.arrays["text"] for part in parts]), batch.arrays["text"])
    with pytest.raises(ValueError, match="a batch of 12 samples cannot be cut into 5 equal micro-batches"):
        batch.micro_batches(5)


def test_a_flipped_byte_is_reported_with_shard_and_key(folder: Path) -> None:
    path = folder / "train/000001.tar"
    content = bytearray(path.read_bytes())
    content[512] ^= 1
    path.write_bytes(content)
    with open_train(folder) as loader, pytest.raises(ValueError, match=r"000001\.tar: tr001_0000: bytes"):
        [loader(step) for step in range(10)]


def test_a_label_out_of_range_is_reported_with_shard_and_key(folder: Path) -> None:
    shards = manifest.read(folder)
    manifest.write(replace(shards, label_names=("zero", "one")), folder)
    with (
        open_train(folder) as loader,
        pytest.raises(ValueError, match=r"tar: tr\d+_\d+: label 2 is out of range: .* 0 to 1"),
    ):
        loader(0)


@pytest.mark.parametrize(
    ("config", "world_size", "sentence"),
    [
        (
            replace(CONFIG, inputs=CONFIG.inputs | {"image": ImageConfig()}),
            1,
            "has image, which reads .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, only .cls, .txt; set data.inputs",
        ),
        (CONFIG, 5, "a global batch of 12 cannot be shared by 5 ranks"),
    ],
)
def test_a_run_that_the_data_cannot_serve_is_refused(
    folder: Path, config: DataConfig, world_size: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_train(folder, 0, world_size, config)


def test_a_class_without_samples_is_refused(folder: Path) -> None:
    shards = manifest.read(folder)
    train = replace(shards.split("train"), label_counts=(20, 0, 0))
    manifest.write(replace(shards, splits={**shards.splits, "train": train}), folder)
    with pytest.raises(ValueError, match=r"class '1' has no sample to train on \(nor have 1 other\); add samples"):
        open_train(folder)
    with open_test(folder) as loader:
        assert loader(0).num_samples > 0


@pytest.mark.slow
def test_processes_change_nothing_and_end_with_the_loader(folder: Path) -> None:
    with open_train(folder) as threads, open_train(folder, config=replace(CONFIG, num_processes=2)) as processes:
        for step in (0, 1, 5, 2):
            expected, batch = threads(step), processes(step)
            assert batch.keys == expected.keys
            torch.testing.assert_close(batch.arrays, expected.arrays, rtol=0, atol=0)
            assert all(array.is_shared() for array in batch.arrays.values())
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_in_a_process_names_shard_and_key(folder: Path) -> None:
    shards = manifest.read(folder)
    manifest.write(replace(shards, label_names=("zero", "one")), folder)
    config = replace(CONFIG, num_processes=1)
    with (
        open_train(folder, config=config) as loader,
        pytest.raises(ValueError, match=r"tar: tr\d+_\d+: label 2 is out of"),
    ):
        loader(0)
