"""Targets on their way from the shards into batches."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from data_shards.config import DataConfig
from data_shards.loading.batch import Batch
from data_shards.loading.dataset import classes_of_labels
from data_shards.loading.streams import eval_loader, train_loader
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transform_config import MaskingConfig, MixupConfig
from data_shards.storage.config import DatasetConfig

PARITY_AND_THIRD = MappingProxyType({"parity": ["even", "odd"], "third": "012"})


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


def named_labels(folder: Path, classes: Mapping[str, Sequence[str]] = PARITY_AND_THIRD) -> Path:
    """Pictures whose third is always known, and whose parity is unknown in every fourth."""
    rows = [
        Row(
            line,
            (Literal(png(line), "png"),),
            label=line % 4,
            named_labels={"third": line % 3} | ({"parity": line % 2} if line % 4 else {}),
        )
        for line in range(24)
    ]
    build_table(rows, folder, label_names="abcd", named_labels=classes, samples_per_shard=6)
    return folder


def first_batch(folder: Path, config: DataConfig, rank: int = 0, world_size: int = 1) -> Batch:
    config = replace(config, shards=str(folder), lanes=2, window=4)
    with train_loader(config, seed=0, global_batch=12, rank=rank, world_size=world_size) as loader:
        return loader(0)


def test_several_labels_are_a_vector(folder: Path) -> None:
    batch = first_batch(folder, DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, multi_label=True))
    for key, target in zip(batch.keys, batch.targets["label"].tolist(), strict=True):
        expected = [0.0, 0.0, 0.0, 1.0]
        expected[int(key) % 3] = 1.0
        assert target == expected


def test_mixed_batches_do_not_depend_on_the_number_of_ranks(folder: Path) -> None:
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, mixup=MixupConfig(mixup_alpha=1.0))
    plain = first_batch(folder, DataConfig(inputs={"image": ImageConfig(height=4, width=4)}))
    alone = first_batch(folder, config)
    assert not torch.equal(plain.arrays["image"], alone.arrays["image"])
    for world_size in (2, 3, 6):
        parts = [first_batch(folder, config, rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat([part.arrays["image"] for part in parts]), alone.arrays["image"])
        assert torch.equal(torch.cat([part.targets["label"] for part in parts]), alone.targets["label"])


def test_evaluation_mixes_nothing(folder: Path) -> None:
    config = DataConfig(
        str(folder), inputs={"image": ImageConfig(height=4, width=4)}, mixup=MixupConfig(mixup_alpha=1.0)
    )
    found = []
    for mixup in (config.mixup, None):
        loader, _ = eval_loader(replace(config, mixup=mixup), "train", global_batch=12)
        with loader:
            found.append(loader(0))
    assert torch.equal(found[0].arrays["image"], found[1].arrays["image"])
    assert set(found[0].targets["label"].flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_samples_have_the_weights_of_their_rows(tmp_path: Path, mode: str) -> None:
    rows = [Row(line, (Literal(png(line), "png"),), label=line % 2, weight=line / 4) for line in range(8)]
    build_table(rows, tmp_path, label_names="ab")
    config = DataConfig(str(tmp_path), inputs={"image": ImageConfig(height=4, width=4)}, lanes=1, window=4)
    if mode == "training":
        loader = train_loader(config, seed=0, global_batch=8)
    else:
        loader, _ = eval_loader(config, "train", global_batch=16)
    with loader:
        batch = loader(0)
    assert {key: weight for key, weight in zip(batch.keys, batch.weights.tolist(), strict=True) if key} == {
        f"{line:08d}": line / 4 for line in range(8)
    }


def test_mixing_needs_an_even_number_of_samples_a_rank(folder: Path) -> None:
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, mixup=MixupConfig(mixup_alpha=1.0))
    with pytest.raises(
        ValueError, match=r"a global batch of 12 on 4 ranks is not a multiple of 8; change train\.global"
    ):
        first_batch(folder, config, 0, 4)


def test_hidden_words_are_targets_apart_from_the_inputs(folder: Path) -> None:
    batch = first_batch(folder, DataConfig(inputs={"text": TextConfig(num_bytes=16, masking=MaskingConfig(0.5))}))
    assert batch.arrays.keys() == {"text"}
    hidden = batch.targets["text"] != 0
    assert hidden.any(dim=1).all()
    assert torch.equal(hidden, batch.arrays["text"] == 3)


def test_targets_follow_their_batch_into_its_micro_batches(folder: Path) -> None:
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, multi_label=True)
    batch = first_batch(folder, config).to("cpu")
    assert torch.equal(torch.cat([part.targets["label"] for part in batch.micro_batches(3)]), batch.targets["label"])


def test_a_further_label_is_a_class_a_sample_or_none(tmp_path: Path) -> None:
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, labels=("parity", "third"))
    batch = first_batch(named_labels(tmp_path), config)
    assert batch.targets.keys() == {"parity", "third"}
    lines = [int(key) for key in batch.keys]
    assert batch.targets["parity"].tolist() == [line % 2 if line % 4 else -1 for line in lines]
    assert batch.targets["third"].tolist() == [line % 3 for line in lines]
    assert first_batch(tmp_path, replace(config, labels=())).targets == {}


def test_datasets_that_are_mixed_may_have_different_labels(tmp_path: Path, folder: Path) -> None:
    parts = {"with": DatasetConfig(str(named_labels(tmp_path / "with"))), "without": DatasetConfig(str(folder))}
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, labels=("parity",), datasets=parts)
    batch = first_batch(folder, config)
    given = (batch.targets["parity"] >= 0).sum()
    assert 0 < given < len(batch.keys)


def test_a_label_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, labels=("colour",))
    with pytest.raises(ValueError, match=r"has no label 'colour' \(further labels: parity, third\); take it out of"):
        first_batch(named_labels(tmp_path), config)


def test_the_labels_that_are_there_are_listed_in_order() -> None:
    there = dict.fromkeys("qwertyuiop", ("a", "b"))
    with pytest.raises(ValueError, match=r"\(further labels: e, i, o, p, q, r, t, u, w, y\)"):
        classes_of_labels(["colour"], {"place": there})


def test_datasets_must_name_the_same_classes_of_a_label(tmp_path: Path) -> None:
    others = named_labels(tmp_path / "others", {"parity": ["odd", "even"], "third": "012"})
    parts = {"a": DatasetConfig(str(named_labels(tmp_path / "these"))), "b": DatasetConfig(str(others))}
    config = DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, labels=("third", "parity"), datasets=parts)
    with pytest.raises(ValueError, match=r"others: names 2 classes of label 'parity', .*these names 2, or in another"):
        first_batch(others, config)


def test_a_further_label_that_is_out_of_range_is_refused_by_its_sample(tmp_path: Path) -> None:
    folder = named_labels(tmp_path)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('["0", "1", "2"]', '["0", "1"]'))
    with pytest.raises(ValueError, match=r"\.tar: \d+: label 'third' 2 is out of range: the manifest names 2 classes"):
        first_batch(folder, DataConfig(inputs={"image": ImageConfig(height=4, width=4)}, labels=("third",)))


def test_a_build_refuses_further_labels_that_are_out_of_range_or_never_seen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 1: label 'parity' 1 is out of range; there is 1 class,"):
        named_labels(tmp_path, {"parity": ["even"], "third": "012"})
    with pytest.raises(ValueError, match=r"1 of 4 'third' classes have no sample in the split 'train': 3"):
        named_labels(tmp_path, {"parity": ["even", "odd"], "third": "0123"})


def test_mixing_needs_images_alone() -> None:
    keys = [
        key
        for key, _ in DataConfig(inputs={"image": ImageConfig(), "text": TextConfig()}, mixup=MixupConfig()).problems()
    ]
    assert keys == ["mixup"]
    labelled = DataConfig(inputs={"image": ImageConfig()}, mixup=MixupConfig(), labels=("colour",))
    assert [key for key, _ in labelled.problems()] == ["labels"]
    assert not list(DataConfig(inputs={"image": ImageConfig()}, mixup=MixupConfig()).problems())


def test_an_evaluation_mixes_no_images_and_no_labels(tmp_path: Path) -> None:
    rows = [Row(line, (Literal(png(10 * line), "png"),), label=line % 3) for line in range(24)]
    build_table(rows, tmp_path, label_names="abc", samples_per_shard=6)
    config = DataConfig(
        str(tmp_path),
        inputs={"image": ImageConfig(height=4, width=4)},
        mixup=MixupConfig(mixup_alpha=5.0),
        lanes=4,
        window=16,
    )
    loader, num_batches = eval_loader(config, "train", global_batch=8)
    with loader:
        batches = [loader(step) for step in range(num_batches)]
    for batch in batches:
        for key, image, label, target in zip(
            batch.keys, batch.arrays["image"], batch.labels, batch.targets["label"], strict=True
        ):
            assert image.unique().tolist() == [10 * int(key)]
            assert target.tolist() == [float(place == int(label)) for place in range(3)]
    with train_loader(config, seed=0, global_batch=8) as loader:
        mixed = loader(0)
    assert any(len(target.nonzero()) > 1 for target in mixed.targets["label"]), "training mixes"


def test_every_sample_has_its_own_weight_in_training_and_evaluation(tmp_path: Path) -> None:
    rows = [Row(line, (Literal(png(line), "png"),), label=line % 3, weight=1 + line / 4) for line in range(24)]
    build_table(rows, tmp_path, label_names="abc", samples_per_shard=6)
    config = DataConfig(str(tmp_path), inputs={"image": ImageConfig(height=4, width=4)}, lanes=4, window=16)
    evaluated, _ = eval_loader(config, "train", global_batch=8)
    with train_loader(config, seed=0, global_batch=8) as trained, evaluated:
        for batch in (trained(0), trained(2), evaluated(0), evaluated(2)):
            assert batch.weights.tolist() == [1 + int(key) / 4 for key in batch.keys]
