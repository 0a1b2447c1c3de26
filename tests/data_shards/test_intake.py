"""Whatever is wrong with one sample makes that sample bad, and nothing else."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.building import adoption
from data_shards.building.inspection import verification
from data_shards.config import DataConfig
from data_shards.format.annotations import OWN
from data_shards.loading import streams
from data_shards.loading.admission import BadSampleError, Intake
from data_shards.loading.reader import Reader
from data_shards.modalities.kinds.text import TextConfig
from data_shards.storage.local_folder import LocalFolder

WriteTar = Callable[..., Path]
CONFIG = DataConfig(inputs={"text": TextConfig(num_bytes=4)}, lanes=1, window=4, max_bad_rate=0.5)


class Members:
    """A reader of one sample."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = members

    def sample(self, shard: int, sample: int) -> tuple[str, Mapping[str, bytes]]:
        return "key", self._members


def take(members: Mapping[str, bytes], config: DataConfig = CONFIG, num_classes: int = 2) -> object:
    reader: Reader = Members(members)  # type: ignore[assignment] # all of it that is asked for
    return Intake(config, OWN, num_classes, {"kind": 1}).sample(reader, 0, 0)[1]


@pytest.mark.parametrize("error", [OverflowError("too large"), RecursionError(), MemoryError(), AssertionError("x\ny")])
def test_any_failure_of_a_decoder_is_a_bad_sample(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> object:
        raise error

    monkeypatch.setattr(TextConfig, "prepare", fail)
    with pytest.raises(BadSampleError, match=type(error).__name__) as found:
        take({"txt": b"x"})
    assert (found.value.key, found.value.input) == ("key", "text")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_leave_leaves(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def fail(*_: object) -> object:
        raise error

    monkeypatch.setattr(TextConfig, "prepare", fail)
    with pytest.raises(error):
        take({"txt": b"x"})


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"png": b"", "cls": b"0"}, "has none of text"),
        ({"txt": b"x", "cls": b"2"}, "label 2 is out of range: the manifest names 2 classes, 0 to 1"),
        ({"txt": b"x", "json": b'{"labels": [0, 5]}'}, "label 5 is out of range"),
        ({"txt": b"x", "json": b'{"named_labels": {"kind": 1}}'}, "label 'kind' 1 is out of range"),
        ({"txt": b"x", "json": b'{"named_labels": {"new": 0}}'}, "label 'new' 0 is out of range"),
    ],
)
def test_a_sample_of_no_use_is_bad(members: dict[str, bytes], told: str) -> None:
    with pytest.raises(BadSampleError, match=told):
        take(members, replace(CONFIG, labels=("kind", "new")))


def test_a_reason_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise ValueError("long " * 10_000)

    monkeypatch.setattr(TextConfig, "prepare", fail)
    with pytest.raises(BadSampleError) as found:
        take({"txt": b"x"})
    assert len(str(found.value)) < 400


def test_only_wanted_modalities_can_make_a_sample_bad() -> None:
    assert take({"txt": b"x", "jpg": b"two", "png": b"images"})


HOSTILE = {
    "deep": b"[" * 100_000,
    "infinite": b'{"labels": [1e999]}',
    "heavy": b'{"weight": 1e300}',
    "long": b'{"weight": ' + b"9" * 400 + b"}",
    "words": b'{"labels": "outdoor"}',
    "broken": b"{",
}


def test_training_goes_on_without_hostile_records_and_verify_names_the_same(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    members = [(f"{n:02d}.{suffix}", b"0") for n in range(12) for suffix in ("txt", "cls")]
    for key, record in HOSTILE.items():
        members += [(f"{key}.txt", b"x"), (f"{key}.cls", b"0"), (f"{key}.json", record)]
    write_tar(tmp_path / "train/0.tar", members)
    shards = adoption.index(tmp_path, records=OWN)
    config, listed = replace(CONFIG, shards=str(tmp_path)), tmp_path / "quarantine.jsonl"
    with streams.train_loader(config, seed=0, global_batch=6, quarantine=listed) as loader:
        for step in range(3):
            assert HOSTILE.keys().isdisjoint(loader(step).keys)
    bad = [json.loads(line)["key"] for line in listed.read_text().splitlines()]
    assert sorted(bad) == sorted(HOSTILE)
    place = LocalFolder(tmp_path)
    report = verification.verify_shard(
        place, shards.split("train").shards[0], verification.intake(shards, "train", config), label_names=("0",)
    )
    assert {fault.key for fault in report.bad} == HOSTILE.keys()


def test_a_weight_of_a_record_weights_its_sample_where_it_was_asked_for(tmp_path: Path, write_tar: WriteTar) -> None:
    members = [
        (f"{n}.{suffix}", data) for n in range(4) for suffix, data in (("txt", b"x"), ("json", b'{"w": %d}' % n))
    ]
    write_tar(tmp_path / "train/0.tar", members)
    for records, expected in ((None, [1.0] * 4), (replace(OWN, weight="w"), [0.0, 1.0, 2.0, 3.0])):
        adoption.index(tmp_path, records=records)
        with streams.train_loader(replace(CONFIG, shards=str(tmp_path)), seed=0, global_batch=4) as loader:
            batch = loader(0)
        assert dict(zip(batch.keys, batch.weights.tolist(), strict=True)) == dict(zip("0123", expected, strict=True))
