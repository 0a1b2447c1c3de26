"""data.require leaves out samples that lack a modality, as if the others alone had been packed, and counts them."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.building import adoption
from data_shards.building.inspection import verification
from data_shards.config import DataConfig
from data_shards.format.annotations import Records
from data_shards.loading import streams
from data_shards.loading.loader.loader import Loader
from data_shards.loading.reader import Reader
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.storage.local_folder import LocalFolder
from data_shards.storage.required_inputs import required

WriteTar = Callable[..., Path]
CONFIG = DataConfig(
    inputs={"points": PointsConfig(num_points=4), "text": TextConfig(num_bytes=4)}, lanes=1, window=4, require=("text",)
)
# Of each shard the samples as letters: t has text, p points, b both, n neither.
SHARDS = ("tbpbn", "pp", "bbb", "tn")


def cloud() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 3), np.float32))
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path, write_tar: WriteTar) -> Path:
    parts = {"t": [("txt", b"x")], "p": [("npy", cloud())], "n": [("cls", b"0")]}
    parts["b"] = parts["t"] + parts["p"]
    for number, kinds in enumerate(SHARDS):
        members = [
            (f"{number}{place}{kind}.{suffix}", data)
            for place, kind in enumerate(kinds)
            for suffix, data in (*parts[kind], ("x", b""))
        ]
        write_tar(tmp_path / f"train/{number}.tar", members)
        write_tar(tmp_path / f"test/{number}.tar", members)
    adoption.index(tmp_path)
    return tmp_path


def keys(loader: Loader, num_steps: int) -> list[str]:
    with loader:
        return sorted(key for step in range(num_steps) for key in loader(step).keys if key)


def expected(letters: str) -> list[str]:
    keys = [f"{n}{place}{kind}" for n, kinds in enumerate(SHARDS) for place, kind in enumerate(kinds)]
    return [key for key in keys if key[-1] in letters]


@pytest.mark.parametrize(("require", "letters"), [(("text",), "tb"), (("points",), "pb"), (("points", "text"), "b")])
def test_exactly_the_samples_that_have_all_are_read(folder: Path, require: tuple[str, ...], letters: str) -> None:
    config, listed = replace(CONFIG, shards=str(folder), require=require), folder / "bad.jsonl"
    wanted = expected(letters)
    training = streams.train_loader(config, seed=0, global_batch=1, quarantine=listed)
    assert training.left_out == (f"data.require leaves out {12 - len(wanted)} samples of split 'train'",)
    assert keys(training, len(wanted)) == wanted
    evaluation, num_steps = streams.eval_loader(config, "test", global_batch=2, quarantine=listed)
    assert keys(evaluation, num_steps) == wanted
    assert not listed.exists()


def test_verify_counts_what_is_left_out_and_calls_only_the_others_bad(folder: Path) -> None:
    config, shards = replace(CONFIG, require=()), LocalFolder(folder).manifest()

    def verified(config: DataConfig) -> verification.Report:
        total = verification.Report()
        for entry in shards.split("train").shards:
            total.add(
                verification.verify_shard(LocalFolder(folder), entry, verification.intake(shards, "train", config))
            )
        return total

    assert [bad.key for bad in verified(config).bad] == expected("n")
    report = verified(CONFIG)
    assert (report.bad, report.samples, report.left_out) == ([], 12, 12 - len(expected("tb")))


def test_a_changed_byte_of_a_sample_after_one_that_is_left_out_is_found(folder: Path) -> None:
    path = folder / "train/0.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"03b.txt") + 512] ^= 1
    path.write_bytes(content)
    config = replace(CONFIG, shards=str(folder), max_bad_rate=0.5)
    training = streams.train_loader(config, seed=0, global_batch=1, quarantine=folder / "bad.jsonl")
    assert "03b" not in keys(training, 8)
    assert '"key": "03b"' in (folder / "bad.jsonl").read_text()


def test_a_run_that_requires_something_else_does_not_resume(folder: Path) -> None:
    config = replace(CONFIG, shards=str(folder))
    saved = streams.data_state(config, seed=0, global_batch=1)
    with pytest.raises(ValueError, match=r"data\.require names others"):
        streams.data_state(replace(config, require=("points",)), seed=0, global_batch=1).check(saved)
    # The same input, of another member: other samples have it.
    renamed = replace(config, inputs={**config.inputs, "text": TextConfig(num_bytes=4, members="caption")})
    with pytest.raises(ValueError, match=r"data\.require names others"):
        streams.data_state(renamed, seed=0, global_batch=1).check(saved)


def test_as_many_samples_that_are_others_are_another_order(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "train/0.tar", [("0.txt", b"x"), ("1.npy", cloud())])
    adoption.index(tmp_path)
    config = replace(CONFIG, shards=str(tmp_path))
    splits = [streams.train_datasets(replace(config, require=(kind,)))[0].split for kind in ("text", "points")]
    assert [split.num_samples for split in splits] == [1, 1]
    assert splits[0].fingerprint != splits[1].fingerprint


def test_a_run_does_not_resume_where_other_fields_of_the_records_are_taken(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "train/0.tar", [("a.txt", b"x"), ("a.json", b'{"score": 2}')])
    states = []
    for field in ("", "score"):
        adoption.index(tmp_path, records=Records(weight=field))
        states.append(streams.data_state(replace(CONFIG, shards=str(tmp_path)), seed=0, global_batch=1))
    with pytest.raises(ValueError, match="was asked for other fields of the records"):
        states[1].check(states[0])


def test_what_no_sample_has_cannot_be_required(folder: Path) -> None:
    assert [key for key, _ in replace(CONFIG, require=("audio",)).problems()] == ["require"]
    split = LocalFolder(folder).manifest().split("train")
    second = replace(split, shards=split.shards.with_samples(np.array([0, 2, 0, 0])))
    assert second.shards.names == ("train/1.tar",)
    with pytest.raises(ValueError, match="leaves out all samples, none has text"):
        required(LocalFolder(folder), second, (("text", ("txt",)),))


def test_a_reader_in_another_process_leaves_out_the_same(folder: Path) -> None:
    config = replace(CONFIG, shards=str(folder))
    split = streams.train_datasets(config)[0].split
    reader = Reader(LocalFolder(folder), split, live_bytes=1 << 20)
    make, words = reader.__reduce__()[:2]
    assert [make(*words).key(0, number) for number in range(3)] == ["00t", "01b", "03b"]
