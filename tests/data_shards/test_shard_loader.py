"""The loader in a loop of one's own: the samples of a run, a state that resumes exactly, errors in its own words."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_shards.config import DataConfig
from data_shards.format.manifest import Manifest
from data_shards.loading.batch import Batch
from data_shards.loading.shard_loader import ShardLoader
from data_shards.loading.streams import train_loader
from data_shards.modalities.kinds.text import TextConfig

TextShards = Callable[..., Manifest]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, text_shards: TextShards) -> DataConfig:
    folder = tmp_path_factory.mktemp("shards")
    text_shards(folder, [13, 12, 11])
    text_shards(folder, [5, 4], split="test")
    return DataConfig(shards=str(folder), inputs={"text": TextConfig(num_bytes=16)}, lanes=4, window=8)


def keys(batches: Iterator[Batch] | ShardLoader, most: int = 10**6) -> list[tuple[str, ...]]:
    return [batch.keys for batch, _ in zip(batches, range(most), strict=False)]


def test_it_gives_the_batches_of_a_run(data: DataConfig) -> None:
    with ShardLoader(data, global_batch=8, seed=3) as loader, train_loader(data, seed=3, global_batch=8) as run:
        for epoch in range(2):
            for step, batch in enumerate(loader, start=epoch * len(loader)):
                expected = run(step)
                assert batch.keys == expected.keys
                assert batch.index == step
                assert torch.equal(batch.arrays["text"], expected.arrays["text"])
                assert torch.equal(batch.labels, expected.labels)
            assert loader.epoch == epoch + 1
    assert len(loader) == 4


@pytest.mark.parametrize("stop", range(9))
def test_a_state_resumes_after_the_batch_that_the_loop_holds(data: DataConfig, stop: int) -> None:
    with ShardLoader(data, global_batch=8) as loader:
        whole = [*keys(loader), *keys(loader), *keys(loader)]
    with ShardLoader(data, global_batch=8) as first:
        seen = []
        while first.step < stop:
            for batch in first:
                seen.append(batch.keys)
                if first.step == stop:
                    break
        state = json.loads(json.dumps(first.state_dict()))
    with ShardLoader(data, global_batch=8) as second:
        second.load_state_dict(state)
        assert second.step == stop
        while second.step < 12:
            seen += keys(second)
    assert seen == whole


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 8])
def test_it_resumes_at_another_number_of_ranks_with_every_sample_once(
    data: DataConfig, before: int, after: int
) -> None:
    def pass_on(world_size: int, state: dict[str, object] | None, steps: int) -> tuple[list[str], dict[str, object]]:
        seen: list[tuple[int, int, tuple[str, ...]]] = []
        states = []
        for rank in range(world_size):
            with ShardLoader(data, global_batch=8, rank=rank, world_size=world_size) as loader:
                if state:
                    loader.load_state_dict(state)
                for batch in loader:
                    seen.append((loader.step, rank, batch.keys))
                    if loader.step == steps:
                        break
                states.append(loader.state_dict())
        assert all(each == states[0] for each in states)
        return [key for *_, part in sorted(seen) for key in part], states[0]

    with ShardLoader(data, global_batch=8) as alone:
        expected = [key for batch in alone for key in batch.keys]
    first, state = pass_on(before, None, 2)
    rest, _ = pass_on(after, state, 4)
    assert first + rest == expected


def test_another_split_is_one_pass_in_which_every_sample_comes_once(data: DataConfig) -> None:
    with ShardLoader(data, global_batch=4, split="test") as loader:
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == len(loader) == 3
            seen = [key for batch in batches for key in batch.keys if key]
            assert len(seen) == len(set(seen)) == 9
            assert sum(batch.weights.sum() for batch in batches) == 9


def test_half_a_pass_over_another_split_resumes_too(data: DataConfig) -> None:
    with ShardLoader(data, global_batch=4, split="test") as loader:
        whole = keys(loader)
        begun = keys(iter(loader), most=1)
        state = loader.state_dict()
    with ShardLoader(data, global_batch=4, split="test") as again:
        again.load_state_dict({**state, "step": 1})
        assert begun + keys(again) == whole


def test_ranks_are_those_of_torch_distributed_where_they_are_not_given(
    data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with ShardLoader(data, global_batch=8) as found:
        theirs = keys(found)
    with ShardLoader(data, global_batch=8, rank=1, world_size=2) as given:
        assert keys(given) == theirs
    assert {len(part) for part in theirs} == {4}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"global_batch": 6},
            r"data.lanes = 4 does not divide the global batch of 6; set data.lanes to one of 1, 2, 3, 6",
        ),
        ({"global_batch": 0}, "global_batch = 0: must be at least 1"),
        (
            {"global_batch": 4000},
            "do not fill one global batch of 4000 .* lower global_batch or data.lanes, or add sam",
        ),
        ({"rank": 0, "world_size": 3}, "8 cannot be shared by 3 ranks; choose a global_batch that the number of ranks"),
        ({"rank": 2, "world_size": 2}, "rank = 2: must be from 0 to below world_size, which is 2"),
        ({"rank": 2}, "rank = 2 and world_size = None: give both, or neither"),
        ({"split": "dev"}, "no split 'dev'"),
    ],
)
def test_what_does_not_fit_is_said_of_its_own_arguments(
    data: DataConfig, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        ShardLoader(data, **{"global_batch": 8, **changes})  # type: ignore[arg-type]
    assert "train." not in str(refusal.value)


def test_a_configuration_that_contradicts_itself_is_refused_with_all_problems(data: DataConfig) -> None:
    with pytest.raises(ValueError, match=r"(?s)data\.inputs\.text\.num_bytes: .*data\.lanes: "):
        ShardLoader(replace(data, inputs=data.inputs | {"text": TextConfig(num_bytes=0)}, lanes=0), global_batch=8)
    with pytest.raises(ValueError, match=r"data\.shards is not set"):
        ShardLoader(replace(data, shards=""), global_batch=8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": 1}, "seed was 1, is 0"),
        ({"global_batch": 16}, "global_batch was 16, is 8"),
        (
            {"split": "test"},
            "the state is of split 'test', this loader reads 'train'; load it into a loader of that split",
        ),
        ({"split": None}, "expected what a ShardLoader's state_dict returned"),
        ({"step": -1}, "the state has step -1, expected 0 or more"),
        ({"step": "3"}, "step: expected a whole number"),
        ({"steps": 3}, "steps: is unknown"),
        ({"version": 7}, "the data state has version 7, expected 2"),
    ],
)
def test_a_state_of_other_samples_is_refused(data: DataConfig, changes: dict[str, object], sentence: str) -> None:
    with ShardLoader(data, global_batch=8) as loader:
        with pytest.raises(ValueError, match=sentence):
            loader.load_state_dict({**loader.state_dict(), **changes})
        assert loader.step == 0


def test_bad_samples_are_listed_where_it_is_told(tmp_path: Path, data: DataConfig, text_shards: TextShards) -> None:
    text_shards(tmp_path / "bad", [16])
    tar = next((tmp_path / "bad").rglob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[content.index(b"tr000_0003\0")] ^= 1
    tar.write_bytes(content)
    broken = replace(data, shards=str(tmp_path / "bad"), lanes=1, max_bad_rate=0.5)
    with ShardLoader(broken, global_batch=8) as strict, pytest.raises(ValueError, match="tr000_0003"):
        list(strict)
    with ShardLoader(broken, global_batch=8, quarantine=tmp_path / "bad.jsonl") as patient:
        assert len(list(patient)) == 2
    assert (tmp_path / "bad.jsonl").read_text().count("\n") == 1
