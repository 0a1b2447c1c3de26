"""From the configuration to batches: mixing, quarantine, data state, and what is refused."""

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.building import adoption
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.manifest import Manifest
from data_shards.loading import streams
from data_shards.loading.batch import Batch
from data_shards.loading.loader.loader import Loader
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.order.state import DataState
from data_shards.storage.config import DatasetConfig

TextShards = Callable[..., Manifest]
WriteTar = Callable[..., Path]
CONFIG = DataConfig(inputs={"text": TextConfig(num_bytes=12)}, lanes=4, window=8)


@pytest.fixture
def config(tmp_path: Path, text_shards: TextShards) -> DataConfig:
    text_shards(tmp_path / "data", [20, 17, 23], "train")
    text_shards(tmp_path / "data", [11], "test")
    return replace(CONFIG, shards=str(tmp_path / "data"))


def flip(path: Path, content: bytes) -> None:
    """Change one bit of the sample whose text this is."""
    data = bytearray(path.read_bytes())
    data[data.rindex(content)] ^= 1
    path.write_bytes(data)


def open_train(config: DataConfig, quarantine: Path | None = None, **ranks: int) -> Loader:
    return streams.train_loader(config, seed=0, global_batch=12, quarantine=quarantine, **ranks)


def keys_of(loader: Loader, steps: range) -> list[tuple[str, ...]]:
    with loader:
        return [loader(step).keys for step in steps]


def test_a_bad_sample_is_replaced_by_the_same_one_on_every_rank_and_after_a_resume(
    tmp_path: Path, config: DataConfig
) -> None:
    whole = keys_of(open_train(config), range(10))
    flip(Path(config.shards) / "train/000001.tar", b"tr001_0005")
    config, listed = replace(config, max_bad_rate=0.05), tmp_path / "run/quarantine.jsonl"
    replaced = keys_of(open_train(config, listed), range(10))
    pairs = zip(sum(whole, ()), sum(replaced, ()), strict=True)
    changed = [(old, new) for old, new in pairs if old != new]
    assert {old for old, _ in changed} == {"tr001_0005"}
    assert all(new.startswith("tr001_") for _, new in changed)
    halves = [keys_of(open_train(config, listed, rank=rank, world_size=2), range(4, 10)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == replaced[4:]
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(line["key"], line["input"]) for line in lines] == [("tr001_0005", "")]
    assert lines[0]["shard"].endswith("000001.tar")
    assert "not what was written" in lines[0]["reason"]


def test_a_shard_in_which_all_is_bad_is_replaced_by_others(
    tmp_path: Path, write_tar: WriteTar, config: DataConfig
) -> None:
    write_tar(Path(config.shards) / "train/alone.tar", [("alone.txt", b""), ("alone.cls", b"0")])
    adoption.index(Path(config.shards))
    config, listed = replace(config, max_bad_rate=0.05), tmp_path / "quarantine.jsonl"
    first = keys_of(open_train(config, listed), range(10))
    assert "alone" not in sum(first, ())
    assert "alone" in listed.read_text()
    assert keys_of(open_train(config, listed), range(10)) == first


def test_a_split_in_which_all_is_bad_ends_the_run(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "train/0.tar", [(f"{n}.txt", b"") for n in range(12)])
    adoption.index(tmp_path)
    config = replace(CONFIG, shards=str(tmp_path), max_bad_rate=1.0)
    with pytest.raises(ValueError, match=r"16 samples of it in a row are bad, and so are as many of other shards"):
        keys_of(open_train(config, tmp_path / "bad.jsonl"), range(1))


def test_too_many_bad_samples_end_the_run_with_their_list(tmp_path: Path, config: DataConfig) -> None:
    for key in (b"tr001_0005", b"tr001_0006"):
        flip(Path(config.shards) / "train/000001.tar", key)
    loader = open_train(replace(config, max_bad_rate=1 / 60), tmp_path / "bad.jsonl")
    told = r"2 of 60 samples of split 'train' are bad, above data\.max_bad_rate .*tr001_0005.*tr001_0006"
    with pytest.raises(ValueError, match=told):
        keys_of(loader, range(10))


def test_a_rate_counts_the_samples_of_its_modality_alone(tmp_path: Path, write_tar: WriteTar) -> None:
    members = [(f"{n:03d}.txt", b"hello") for n in range(100)] + [("100.npy", b"no array"), ("101.npy", b"nor this")]
    write_tar(tmp_path / "data/train/0.tar", members)
    adoption.index(tmp_path / "data")
    config = replace(
        CONFIG,
        shards=str(tmp_path / "data"),
        inputs=CONFIG.inputs | {"points": PointsConfig(num_points=4)},
        max_bad_rate=0.5,
    )
    with pytest.raises(ValueError, match=r"2 of 2 points of split 'train' are bad"):
        keys_of(open_train(config, tmp_path / "bad.jsonl"), range(16))


def test_a_bad_sample_of_an_evaluation_is_padding(tmp_path: Path, config: DataConfig) -> None:
    flip(Path(config.shards) / "test/000000.tar", b"te000_0003")
    listed = tmp_path / "bad.jsonl"
    loader, num_steps = streams.eval_loader(
        replace(config, max_bad_rate=0.1), "test", global_batch=4, quarantine=listed
    )
    with loader:
        batches = [loader(step) for step in range(num_steps)]
    assert sum(batch.num_samples for batch in batches) == 10
    assert "te000_0003" in listed.read_text()


def test_bad_samples_are_counted_against_the_split_that_they_are_of(tmp_path: Path, config: DataConfig) -> None:
    for key in (b"tr001_0005", b"tr001_0006"):
        flip(Path(config.shards) / "train/000001.tar", key)
    flip(Path(config.shards) / "test/000000.tar", b"te000_0003")
    # 2 of 60 and 1 of 11: neither above a tenth, but 3 of 11 would be.
    config, listed = replace(config, max_bad_rate=0.1), tmp_path / "bad.jsonl"
    for _ in range(2):
        keys_of(open_train(config, listed), range(10))
        loader, num_steps = streams.eval_loader(config, "test", global_batch=4, quarantine=listed)
        keys_of(loader, range(num_steps))
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert sorted((line["split"], line["key"]) for line in lines) == [
        ("test", "te000_0003"),
        ("train", "tr001_0005"),
        ("train", "tr001_0006"),
    ]


def test_too_many_bad_samples_of_an_evaluation_end_it_with_those_of_its_split(
    tmp_path: Path, config: DataConfig
) -> None:
    flip(Path(config.shards) / "train/000001.tar", b"tr001_0005")
    flip(Path(config.shards) / "test/000000.tar", b"te000_0003")
    config, listed = replace(config, max_bad_rate=0.05), tmp_path / "bad.jsonl"
    keys_of(open_train(config, listed), range(10))
    loader, num_steps = streams.eval_loader(config, "test", global_batch=4, quarantine=listed)
    with pytest.raises(ValueError, match=r"1 of 11 samples of split 'test' are bad") as error:
        keys_of(loader, range(num_steps))
    assert "tr001_0005" not in str(error.value)


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"shard": "a", "key": "b", "reason": "c"}\n'])
def test_a_damaged_or_older_line_of_the_list_is_kept_and_counted_against_no_split(
    tmp_path: Path, config: DataConfig, line: bytes
) -> None:
    flip(Path(config.shards) / "train/000001.tar", b"tr001_0005")
    listed = tmp_path / "bad.jsonl"
    listed.write_bytes(line)
    keys_of(open_train(replace(config, max_bad_rate=1 / 60), listed), range(6))
    assert listed.read_bytes().startswith(line)
    assert b"tr001_0005" in listed.read_bytes()


def test_a_line_that_a_killed_process_left_unfinished_is_dropped(tmp_path: Path, config: DataConfig) -> None:
    flip(Path(config.shards) / "train/000001.tar", b"tr001_0005")
    listed = tmp_path / "bad.jsonl"
    listed.write_text('{"shard": "x", "ke')
    keys_of(open_train(replace(config, max_bad_rate=0.05), listed), range(6))
    assert [json.loads(line)["key"] for line in listed.read_text().splitlines()] == ["tr001_0005"]


def test_datasets_are_mixed_by_weight(tmp_path: Path, text_shards: TextShards) -> None:
    for name, counts in (("a", [40, 40]), ("b", [12])):
        text_shards(tmp_path / name, counts)
    datasets = {"a": DatasetConfig(str(tmp_path / "a"), 3.0), "b": DatasetConfig(str(tmp_path / "b"), 1.0)}
    config = replace(CONFIG, datasets=datasets)
    with streams.train_loader(config, seed=0, global_batch=16) as loader:
        batches = [loader(step) for step in range(10)]
        sources = [Counter(loader.order.slots(step, 0, 16).source.tolist()) for step in range(10)]
    assert all(count == {0: 12, 1: 4} for count in sources)
    assert all(batch.num_samples == 16 for batch in batches)


def test_a_dataset_may_serve_only_some_modalities(tmp_path: Path, write_tar: WriteTar, text_shards: TextShards) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 3), np.float32))
    members = [("txt", b"not taken"), ("npy", stream.getvalue())]
    samples = [[*members, ("cls", b"%d" % (number % 3))] for number in range(16)]
    named = [(f"{number:03d}.{kind}", data) for number, sample in enumerate(samples) for kind, data in sample]
    write_tar(tmp_path / "points/train/0.tar", named)
    adoption.index(tmp_path / "points")
    text_shards(tmp_path / "text", [16])
    points, text = (
        DatasetConfig(str(tmp_path / "points"), inputs=("points",)),
        DatasetConfig(str(tmp_path / "text")),
    )
    datasets = {"p": points, "t": text}
    config = replace(CONFIG, inputs=CONFIG.inputs | {"points": PointsConfig(num_points=4)}, datasets=datasets)
    with streams.train_loader(config, seed=0, global_batch=8) as loader:
        batch: Batch = loader(0)
    has = list(zip((batch.lengths["points"] > 0).tolist(), (batch.lengths["text"] > 0).tolist(), strict=True))
    assert Counter(has) == {(True, False): 4, (False, True): 4}
    bad = replace(config, datasets={"p": points, "t": replace(text, inputs=("points",))})
    with pytest.raises(ValueError, match=r"datasets\.t\.inputs has 'points', which is not in the shards \(text\)"):
        streams.train_datasets(bad)


def test_datasets_with_other_classes_are_refused(tmp_path: Path, config: DataConfig, text_shards: TextShards) -> None:
    other = text_shards(tmp_path / "other", [9])
    manifest.write(replace(other, label_names=("a", "b", "c")), tmp_path / "other")
    both = {"a": DatasetConfig(config.shards), "b": DatasetConfig(str(tmp_path / "other"))}
    with pytest.raises(ValueError, match="datasets that are mixed must share their classes"):
        streams.train_datasets(replace(config, datasets=both))


def labelled(folder: Path, write_tar: WriteTar, labels: range) -> DatasetConfig:
    """Adopt samples of these labels, each also with a further label that is one less."""
    records = [json.dumps({"labels": [label], "named_labels": {"less": max(label - 1, 0)}}) for label in labels]
    members = [
        part for n, record in enumerate(records) for part in ((f"{n}.txt", b"x"), (f"{n}.json", record.encode()))
    ]
    write_tar(folder / "train/0.tar", members)
    write_tar(folder / "test/0.tar", members)
    adoption.index(folder)
    return DatasetConfig(str(folder))


def test_adopted_datasets_whose_largest_labels_differ_are_mixed_and_evaluated(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    few = labelled(tmp_path / "few", write_tar, range(4))
    many = labelled(tmp_path / "many", write_tar, range(8))
    config = replace(CONFIG, datasets={"a": few, "b": many}, lanes=1, multi_label=True, labels=("less",))
    assert streams.label_names(config) == tuple("01234567")
    assert streams.named_classes(config) == {"less": 7}
    with streams.train_loader(config, seed=0, global_batch=8) as loader:
        targets = loader(0).targets["label"]
    assert targets.shape == (8, 8)
    assert targets.sum() == 8
    # What is evaluated alone answers as many classes as the network has.
    loader, _ = streams.eval_loader(replace(config, shards=few.shards), "test", global_batch=4)
    with loader:
        assert loader(0).targets["label"].shape == (4, 8)


def test_a_dataset_without_labels_can_be_mixed_with_one_that_has_them(
    tmp_path: Path, write_tar: WriteTar, config: DataConfig
) -> None:
    write_tar(tmp_path / "plain/train/0.tar", [(f"{n}.txt", b"x") for n in range(8)])
    adoption.index(tmp_path / "plain")
    named = manifest.read(Path(config.shards))
    manifest.write(replace(named, label_names=("a", "b", "c")), Path(config.shards))
    both = {"a": DatasetConfig(str(tmp_path / "plain")), "b": DatasetConfig(config.shards)}
    with open_train(replace(config, datasets=both)) as loader:
        assert -1 in loader(0).labels.tolist()
        assert loader.assembler.num_classes == 3


def test_what_is_evaluated_has_the_classes_of_what_is_trained_on(
    tmp_path: Path, config: DataConfig, text_shards: TextShards
) -> None:
    other = text_shards(tmp_path / "other", [9])
    manifest.write(replace(other, label_names=("a", "b", "c")), tmp_path / "other")
    mixed = replace(config, datasets={"a": DatasetConfig(str(tmp_path / "other"))})
    with pytest.raises(ValueError, match="datasets that are mixed must share their classes"):
        streams.eval_loader(replace(mixed, shards=config.shards), "test", global_batch=1)


def test_the_data_state_is_small_and_survives_json(config: DataConfig) -> None:
    state = streams.data_state(config, seed=123, global_batch=4096, step=10**9)
    assert DataState.from_json(state.to_json()) == state
    mixed = replace(config, datasets={name: DatasetConfig(config.shards) for name in ("a", "b", "c")})
    assert len(streams.data_state(mixed, seed=123, global_batch=4096, step=10**9).to_json()) < 300


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"manifest": "f" * 64},
            r"see other samples \(data\.shards, .* were rebuilt or replaced, [^0-9]*\); set it back",
        ),
        ({"lanes": 8}, r"would see other samples \(lanes was 8, is 4\); set it back, or start a new run"),
        ({"seed": 1}, r"\(seed was 1, is 0\)"),
        ({"datasets": "abc"}, r"\(data\.datasets: names, weights or modalities are others\)"),
    ],
)
def test_a_resume_with_other_data_is_refused(config: DataConfig, change: dict[str, int], sentence: str) -> None:
    state = streams.data_state(config, seed=0, global_batch=12)
    state.check(replace(state, step=99))
    with pytest.raises(ValueError, match=sentence):
        state.check(replace(state, **change))  # type: ignore[arg-type]


def test_a_data_state_of_another_version_is_refused(config: DataConfig) -> None:
    text = streams.data_state(config, seed=0, global_batch=12).to_json().replace('"version": 2', '"version": 1')
    with pytest.raises(ValueError, match="the data state has version 1, expected 2"):
        DataState.from_json(text)


def test_shards_that_are_not_set_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"data\.shards is not set"):
        streams.train_datasets(CONFIG)


def test_a_sample_with_nothing_that_the_network_reads_is_refused_by_its_key(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    members = [(f"s{sample:02d}.txt", b"words") for sample in range(12)]
    write_tar(tmp_path / "train/000000.tar", [*members, ("s12.cls", b"0")])
    adoption.index(tmp_path)
    with pytest.raises(ValueError, match=r"000000\.tar: s12: has none of text"):
        keys_of(open_train(replace(CONFIG, shards=str(tmp_path))), range(2))
