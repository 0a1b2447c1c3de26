"""Inputs under names of the user's own: which members each of them reads."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.building import adoption
from data_shards.building.inspection import verification
from data_shards.building.inspection.contact_sheet import contact_sheet
from data_shards.config import DataConfig
from data_shards.format.members import fitting
from data_shards.loading import streams
from data_shards.loading.batch import Batch
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.catalogue import MODALITIES, held_by, inputs_of
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig

WriteTar = Callable[[Path, Sequence[tuple[str, bytes]]], Path]


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    return file.getvalue()


def image(*members: str) -> ImageConfig:
    return ImageConfig(members=members, height=4, width=4)


def text(*members: str) -> TextConfig:
    return TextConfig(members=members, num_bytes=8)


def words(ids: np.ndarray) -> str:
    return (ids[ids > 5] - 6).astype(np.uint8).tobytes().decode()


def test_several_inputs_of_one_modality_read_a_member_each() -> None:
    config = DataConfig(inputs={"right": image("right.png"), "left": image("left.png"), "photo": image()})
    sample = prepare({"left.png": png(1), "right.png": png(2), "png": png(3)}, config)
    assert list(sample.arrays) == ["left", "photo", "right"]
    assert {name: int(array.max()) for name, array in sample.arrays.items()} == {"left": 1, "right": 2, "photo": 3}


def test_two_inputs_may_read_the_same_member() -> None:
    config = DataConfig(inputs={"small": ImageConfig(height=2, width=2), "large": ImageConfig(height=4, width=4)})
    sample = prepare({"png": png(7)}, config)
    assert {name: array.shape for name, array in sample.arrays.items()} == {"small": (2, 2, 3), "large": (4, 4, 3)}


@pytest.mark.parametrize(
    ("patterns", "suffixes", "found"),
    [
        (["jpg", "png"], ["jpg", "left.jpg", "txt"], [("jpg", "")]),
        (["LEFT.JPG"], ["left.jpg"], [("left.jpg", "")]),
        (["*.jpg"], ["jpg", "left.jpg", "a.b.jpg"], [("a.b.jpg", ""), ("left.jpg", "")]),
        (["left.*"], ["left.jpg", "right.jpg"], [("left.jpg", "")]),
        (["json.caption"], ["json", "json.caption"], [("json", "caption")]),
        (["json/caption"], ["json"], [("json", "caption")]),
        (["meta.json.a.b"], ["meta.json", "json"], [("meta.json", "a.b")]),
        (["arrays.npz/eeg"], ["arrays.npz", "npz"], [("arrays.npz", "eeg")]),
        (["npz"], ["npz", "arrays.npz"], [("npz", "")]),
        (["jpg", "*"], ["jpg"], [("jpg", "")]),
        (["json.A", "json.b"], ["json"], [("json", "A"), ("json", "b")]),
    ],
)
def test_patterns_mean_suffixes_and_fields_of_members(
    patterns: list[str], suffixes: list[str], found: list[tuple[str, str]]
) -> None:
    assert list(fitting(patterns, suffixes)) == found


def test_two_members_that_fit_one_input_are_a_bad_sample_that_names_the_input() -> None:
    config = DataConfig(inputs={"photo": image("png", "left.png")})
    assert int(prepare({"left.png": png(1)}, config).arrays["photo"].max()) == 1
    with pytest.raises(BadMemberError, match=r"input photo: two members fit: \.left\.png and \.png") as caught:
        prepare({"left.png": png(1), "png": png(2)}, config)
    assert caught.value.input == "photo"


def test_a_text_may_be_a_field_of_a_record() -> None:
    config = DataConfig(inputs={"caption": text("json.caption"), "title": text("json.head.title")})

    def read(record: object) -> dict[str, str]:
        sample = prepare({"json": json.dumps(record).encode(), "png": png(1)}, config)
        return {name: words(array) for name, array in sample.arrays.items()}

    assert read({"caption": "a cat", "head": {"title": "one"}}) == {"caption": "a cat", "title": "one"}
    assert read({"caption": "ä", "head.title": "two"}) == {"caption": "ä", "title": "two"}
    assert read({"caption": 7, "head": {"title": None}}) == {"caption": "7"}
    assert read({"caption": "", "head": []}) == {}
    assert read(["caption"]) == {}


def test_a_record_that_cannot_be_read_is_a_bad_sample() -> None:
    with pytest.raises(BadMemberError, match=r"input caption: \.json: it is no JSON"):
        prepare({"json": b"{"}, DataConfig(inputs={"caption": text("json.caption")}))


def test_an_input_may_be_an_array_of_an_archive() -> None:
    config = DataConfig(inputs={"cloud": PointsConfig(members="arrays.npz/cloud", num_points=2)})
    cloud = np.arange(6, dtype=np.float32).reshape(2, 3)
    sample = prepare({"arrays.npz": npz(cloud=cloud, other=np.zeros(9))}, config)
    np.testing.assert_array_equal(sample.arrays["cloud"], cloud)
    assert prepare({"arrays.npz": npz(other=cloud)}, config).arrays == {}


@pytest.mark.parametrize("archive", [b"", b"PK\x03\x04", npz(cloud=np.zeros((2, 3)))[:-30]])
def test_an_archive_that_cannot_be_read_is_a_bad_sample(archive: bytes) -> None:
    with pytest.raises(BadMemberError, match=r"\.arrays\.npz: corrupt \.npz file"):
        prepare({"arrays.npz": archive}, DataConfig(inputs={"cloud": PointsConfig(members="arrays.npz/cloud")}))


def test_training_hides_inputs_by_their_names() -> None:
    config = DataConfig(inputs={"left": image("left.png"), "right": image("right.png")}, modality_dropout={"left": 1.0})
    members = {"left.png": png(1), "right.png": png(2)}
    assert list(prepare(members, config, np.random.default_rng(0)).arrays) == ["right"]
    assert list(prepare(members, config).arrays) == ["left", "right"]


def folder(tmp_path: Path, write_tar: WriteTar) -> Path:
    members = [(f"{n}.left.png", png(n)) for n in range(4)] + [(f"{n}.right.png", png(9)) for n in range(1, 4)]
    members += [(f"{n}.json", json.dumps({"caption": "x"} if n < 3 else {}).encode()) for n in range(4)]
    write_tar(tmp_path / "train" / "0.tar", sorted(members))
    adoption.index(tmp_path)
    return tmp_path


def batch_of(config: DataConfig, num_samples: int) -> Batch:
    with streams.train_loader(config, seed=0, global_batch=num_samples) as loader:
        return loader(0)


def test_a_batch_has_an_array_for_each_name(tmp_path: Path, write_tar: WriteTar) -> None:
    inputs = {"left": image("left.png"), "right": image("right.png"), "caption": text("json.caption")}
    config = DataConfig(str(folder(tmp_path, write_tar)), inputs=inputs, lanes=1, window=4)
    batch = batch_of(config, 4)
    order = [int(key) for key in batch.keys]
    assert batch.arrays["left"].amax(dim=(1, 2, 3)).tolist() == order
    assert batch.lengths["right"].tolist() == [4 * (n > 0) for n in order]
    assert batch.lengths["caption"].tolist() == [int(n < 3) for n in order]


def test_exactly_the_samples_with_a_required_member_are_read(tmp_path: Path, write_tar: WriteTar) -> None:
    inputs = {"left": image("left.png"), "right": image("right.png")}
    config = DataConfig(str(folder(tmp_path, write_tar)), inputs=inputs, require=("right",), lanes=1, window=4)
    assert sorted(batch_of(config, 3).keys) == ["1", "2", "3"]


def test_a_sample_without_a_required_field_is_bad(tmp_path: Path, write_tar: WriteTar) -> None:
    inputs = {"left": image("left.png"), "caption": text("json.caption")}
    config = DataConfig(str(folder(tmp_path, write_tar)), inputs=inputs, require=("caption",), lanes=1, window=4)
    with pytest.raises(ValueError, match=r"3: lacks json\.caption, which data\.require asks for"):
        batch_of(config, 4)


def test_an_input_that_no_sample_has_is_told_with_what_there_is(tmp_path: Path, write_tar: WriteTar) -> None:
    config = DataConfig(str(folder(tmp_path, write_tar)), inputs={"photo": image()}, lanes=1, window=4)
    with pytest.raises(
        ValueError, match=r"no sample of split 'train' has photo, which reads \.png, .*\.left\.png"
    ) as e:
        batch_of(config, 4)
    assert "set data.inputs.photo.members to one of these" in str(e.value)


def test_verify_and_the_contact_sheet_find_members_of_any_name(tmp_path: Path, write_tar: WriteTar) -> None:
    report = verification.verify(folder(tmp_path, write_tar))
    assert report.shapes == {"left": [[4, 4, 3]] * 2, "right": [[4, 4, 3]] * 2}
    assert not report.bad
    assert contact_sheet(tmp_path, tmp_path / "sheet.png") == 4


def test_verify_reads_what_a_run_reads(tmp_path: Path, write_tar: WriteTar) -> None:
    config = DataConfig(inputs={"caption": text("json.caption")}, lanes=1)
    report = verification.verify(folder(tmp_path, write_tar), config)
    assert [bad.key for bad in report.bad] == ["3"]
    assert report.shapes == {"caption": [[1], [1]]}


def test_what_members_hold_is_guessed_by_their_suffix() -> None:
    assert held_by("left.jpg") == held_by("jpg") == (ImageConfig, "")
    assert held_by("cls") is held_by("json") is held_by("seg") is None
    found = inputs_of(["left.jpg", "png", "cls", "left.txt", "a.b.png", "npy", "eeg.npy"])
    assert {name: (section.modality, section.patterns[0]) for name, section in found.items()} == {
        "array": ("array", "npy"),
        "eeg": ("array", "eeg.npy"),
        "points": ("points", "npy"),
        "image": ("image", "png"),
        "left": ("image", "left.jpg"),
        "left_txt": ("text", "left.txt"),
        "a_b": ("image", "a.b.png"),
    }


@pytest.mark.parametrize("kind", MODALITIES)
def test_every_modality_says_what_it_reads_and_delivers(kind: type[Any]) -> None:
    section = kind(**{"shape": (2, 3)} if kind is ArrayConfig else {})
    assert section.modality
    assert section.usual
    assert min(section.shape, default=1) > 0
    np.dtype(section.dtype)
    assert list(section.problems()) == []
    assert list(replace(section, members="a.b").problems()) == []
    assert [key for key, _ in replace(section, members=(".jpg", "")).problems()] == ["members", "members"]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"all": TextConfig()}}, "inputs.all"),
        ({"modality_dropout": {"image": 0.5}}, "modality_dropout.image"),
        ({"require": ("image",)}, "require"),
        ({"inputs": {"words": TextConfig(num_bytes=0)}}, "inputs.words.num_bytes"),
    ],
)
def test_what_is_wrong_with_the_inputs_is_told_by_its_key(fields: dict[str, Any], key: str) -> None:
    assert [found for found, _ in DataConfig(**{"inputs": {"words": TextConfig()}, **fields}).problems()] == [key]
