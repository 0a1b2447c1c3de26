"""A label as input: hidden by a draw of its own for each sample and epoch, the same at every world size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.building.adoption_counts import inputs_of
from data_shards.config import DataConfig
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.loading.shard_loader import ShardLoader
from data_shards.modalities.kinds.catalogue import held_by
from data_shards.modalities.kinds.label import LabelConfig
from data_shards.modalities.kinds.text import TextConfig

COUNTS = (12, 12, 12, 12)
BATCH = 8


@pytest.fixture(scope="module")
def folder(text_shards: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels")
    for split in ("train", "test"):
        text_shards(path, COUNTS, split)
    return path


def config(folder: Path, **fields: Any) -> DataConfig:  # noqa: ANN401 - of any key
    inputs = {"label": LabelConfig(num_classes=3, **fields), "text": TextConfig(num_bytes=4)}
    return DataConfig(shards=str(folder), inputs=inputs, lanes=4, window=8, num_threads=1)


def shown(data: DataConfig, *, world_size: int = 1, skip: int = 0, steps: int = 12) -> dict[tuple[int, str], int]:
    """The input of each sample by step and key, as all ranks together read them."""
    found = {}
    for rank in range(world_size):
        with ShardLoader(data, global_batch=BATCH, seed=3, rank=rank, world_size=world_size) as loader:
            loader.load_state_dict({**loader.state_dict(), "step": skip})
            batches = (batch for _ in range(steps) for batch in loader)
            for step in range(skip, steps):
                batch = next(batches)
                for key, value, truth in zip(
                    batch.keys, batch.arrays["label"].tolist(), batch.labels.tolist(), strict=True
                ):
                    assert value in (-1, truth)
                    found[step, key] = value
                assert batch.lengths["label"].tolist() == [1] * len(batch.keys)
    return found


def test_what_is_hidden_depends_on_seed_epoch_and_sample_alone(folder: Path) -> None:
    data = config(folder)
    alone = shown(data)
    assert len(alone) == 12 * BATCH
    assert np.mean([value == -1 for value in alone.values()]) == pytest.approx(0.5, abs=0.15)
    for world_size in (2, 4):
        assert shown(data, world_size=world_size) == alone
    # After a resume in the second epoch.
    assert shown(data, skip=7) == {place: value for place, value in alone.items() if place[0] >= 7}
    first = {key: value == -1 for (step, key), value in alone.items() if step < 6}
    second = {key: value == -1 for (step, key), value in alone.items() if step >= 6}
    assert first != second


@pytest.mark.parametrize(("hide", "hidden"), [(0.0, set[bool]()), (1.0, {True})])
def test_a_probability_of_none_or_all_is_exact(folder: Path, hide: float, hidden: set[bool]) -> None:
    assert {value == -1 for value in shown(config(folder, hide=hide), steps=3).values()} == (hidden or {False})


@pytest.mark.parametrize("hides", [True, False])
def test_an_evaluation_hides_all_or_none(folder: Path, hides: bool) -> None:
    data = config(folder, hide_in_evaluation=hides)
    with ShardLoader(data, global_batch=BATCH, split="test") as loader:
        batch = next(iter(loader))
    assert torch.equal(batch.arrays["label"], torch.full_like(batch.labels, -1) if hides else batch.labels)


def test_another_probability_leaves_the_draws_of_other_inputs_as_they_are(folder: Path) -> None:
    texts = []
    for hide in (0.0, 0.9):
        with ShardLoader(config(folder, hide=hide), global_batch=BATCH, seed=3) as loader:
            texts.append(next(iter(loader)).arrays["text"].clone())
    assert torch.equal(*texts)


def test_a_further_label_of_a_record_is_read_and_one_that_is_none_is_absent() -> None:
    data = DataConfig(
        inputs={
            "text": TextConfig(),
            "writer": LabelConfig(num_classes=5, members="json.named_labels.writer", hide=0.0),
        }
    )
    for found, lengths in (
        ({"writer": 4}, {"text": 1, "writer": 1}),
        ({"writer": None}, {"text": 1}),
        ({}, {"text": 1}),
    ):
        record = json.dumps({"named_labels": found}).encode()
        sample = prepare({"txt": b"a", "json": record}, data, np.random.default_rng(0))
        assert sample.lengths == lengths
        assert "writer" not in lengths or int(sample.arrays["writer"]) == 4
    plain = DataConfig(inputs={"label": LabelConfig(), "text": TextConfig()})
    assert prepare({"txt": b"a", "cls": b"-1\n"}, plain).lengths == {"text": 1}


@pytest.mark.parametrize("content", [b"3", b"x", b"", b"-2", "٣".encode(), b"9" * 5000])
def test_a_label_that_is_none_of_the_classes_makes_the_sample_bad(content: bytes) -> None:
    data = DataConfig(inputs={"label": LabelConfig(num_classes=3, members="label.txt")})
    with pytest.raises(BadMemberError, match=r"^\.label\.txt: label ") as refused:
        prepare({"label.txt": content}, data)
    assert len(str(refused.value)) < 200


def test_a_label_is_an_input_only_where_it_is_asked_for() -> None:
    assert held_by("cls") is None
    assert set(inputs_of(["cls", "txt"])) == {"text"}


@pytest.mark.parametrize(("fields", "key"), [({"num_classes": 0}, "num_classes"), ({"hide": 1.5}, "hide")])
def test_a_problem_of_a_label_names_its_key(fields: dict[str, Any], key: str) -> None:
    assert [found for found, _ in LabelConfig(**fields).problems()] == [key]
