"""Sections under names of the user's own, read strictly."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from omegaconf import OmegaConf

from configs.files import ConfigError, leaves
from configs.reader import read

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best


@dataclass(frozen=True)
class Crop:
    least: float = 0.5


@dataclass(frozen=True)
class Image:
    modality: Literal["image"] = "image"
    height: int = 28
    members: tuple[str, ...] = ()
    crop: Optional[Crop] = None


@dataclass(frozen=True)
class Sound:
    modality: Literal["sound"] = "sound"
    rate: float = 8000.0


@dataclass(frozen=True)
class Label:
    kind: Literal["label"] = "label"
    num_classes: int = 10


@dataclass(frozen=True)
class Noisy(Image):
    modality: Literal["noisy"] = "noisy"  # type: ignore[assignment]  # as plug-ins do
    noise: float = 1.0


CLASSES = {"image": Image, "sound": Sound}
OF_DATA = {**CLASSES, "noisy": Noisy}


@dataclass(frozen=True)
class Data:
    inputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "modality", "among": OF_DATA})
    lanes: int = 8


@dataclass(frozen=True)
class Network:
    inputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "modality", "among": CLASSES})
    outputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "kind", "among": {"label": Label}})


@dataclass(frozen=True)
class Run:
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network, metadata={"follows": {"inputs": "data.inputs"}})

    def problems(self) -> Iterator[tuple[str, str]]:
        for name, entry in self.data.inputs.items():
            if getattr(entry, "height", 1) < 1:
                yield f"data.inputs.{name}.height", "must be at least 1"


FILE = """
data:
  inputs:
    photo: {modality: image, height: 224}
    left: {modality: image, members: [left.jpg], crop: {least: 0.1}}
    voice: {modality: sound}
model:
  inputs:
    photo: {}
    left: {height: 3}
    voice: {rate: 16000}
  outputs:
    digit: {kind: label, num_classes: 7}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    return path


def problems_of(file: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(Run, file, overrides)
    return caught.value.problems


def test_each_entry_is_of_the_class_that_its_key_chooses(file: Path) -> None:
    run = read(Run, file)
    assert run.data.inputs == {"photo": Image(height=224), "left": Image("image", 28, ("left.jpg",), Crop(0.1))} | {
        "voice": Sound()
    }
    assert run.model.outputs == {"digit": Label(num_classes=7)}


def test_an_entry_that_does_not_say_its_class_has_that_of_the_entry_that_it_follows(file: Path) -> None:
    assert read(Run, file).model.inputs == {"photo": Image(), "left": Image(height=3), "voice": Sound(rate=16000.0)}


def test_an_override_changes_one_key_of_one_entry_and_adds_entries(file: Path) -> None:
    run = read(Run, file, ["data.inputs.photo.height=32", "data.inputs.right={modality: image, height: 5}"])
    assert run.data.inputs["photo"] == Image(height=32)
    assert run.data.inputs["right"] == Image(height=5)
    assert run.data.inputs["left"].members == ("left.jpg",)


def test_a_class_may_be_chosen_after_the_keys_that_are_of_it(file: Path) -> None:
    assert read(Run, file, ["data.inputs.far.rate=5", "data.inputs.far.modality=sound"]).data.inputs["far"] == Sound(
        rate=5.0
    )


def test_a_class_may_be_chosen_anew(file: Path) -> None:
    run = read(Run, file, ["model.inputs.voice={}", "data.inputs.voice.modality=image", "data.inputs.voice.height=5"])
    assert run.data.inputs["voice"] == Image(height=5)
    assert run.model.inputs["voice"] == Image()


def test_nothing_in_place_of_an_entry_takes_back_its_keys_and_of_the_section_all_entries(file: Path) -> None:
    run = read(Run, file, ["data.inputs.photo={}", "data.inputs.photo.modality=image"])
    assert run.data.inputs["photo"] == Image()
    assert read(Run, file, ["model.inputs={}", "data.inputs={}"]).data.inputs == {}


def test_null_in_place_of_an_entry_removes_it_and_it_may_come_again(file: Path) -> None:
    gone = ["data.inputs.voice=null", "model.inputs.voice=null"]
    assert set(read(Run, file, gone).data.inputs) == {"photo", "left"}
    back = read(Run, file, [*gone, "data.inputs.voice.modality=sound"])
    assert back.data.inputs["voice"] == Sound()


def test_a_configuration_that_was_written_reads_as_the_same_and_names_each_class(file: Path, tmp_path: Path) -> None:
    run = read(Run, file)
    written = tmp_path / "written.yaml"
    written.write_text(OmegaConf.to_yaml(OmegaConf.structured(run)))
    assert read(Run, written) == run
    content = OmegaConf.to_container(OmegaConf.structured(run))
    assert isinstance(content, dict)
    assert dict(leaves({str(key): value for key, value in content.items()}))["model.inputs.voice.modality"] == "sound"


def test_a_value_may_be_that_of_a_key_of_an_entry(file: Path) -> None:
    run = read(Run, file, ["model.inputs.photo.height=${data.inputs.photo.height}"])
    assert run.model.inputs["photo"].height == 224


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "data.inputs.photo.modality=imag",
            "data.inputs.photo.modality = 'imag': expected one of image, noisy, sound; did you mean image?",
        ),
        ("data.inputs.photo.modality=3", "data.inputs.photo.modality = 3: expected one of image, noisy, sound"),
        (
            "data.inputs.photo.modality=[image]",
            "data.inputs.photo.modality = ['image']: expected one of image, noisy, sound",
        ),
        ("data.inputs.eeg={}", "data.inputs.eeg.modality: is not set; set it to one of image, noisy, sound"),
        ("data.inputs.eeg.height=3", "data.inputs.eeg.modality: is not set; set it to one of image, noisy, sound"),
        ("model.outputs.a.num_classes=3", "model.outputs.a.kind: is not set; set it to one of label"),
        ("model.inputs.eeg.height=3", "model.inputs.eeg.modality: is not set; set it to one of image, sound"),
        (
            "data.inputs.photo.heigth=3",
            "data.inputs.photo.heigth = 3: unknown key; did you mean data.inputs.photo.heig",
        ),
        ("data.inputs.photo.rate=3", "data.inputs.photo.rate = 3: unknown key; known are modality, height, members"),
        ("data.inputs.photo.crop.most=3", "data.inputs.photo.crop.most = 3: unknown key"),
        (
            "model.outputs.digit.num_classes=many",
            "model.outputs.digit.num_classes = 'many': Value 'many' of type 'str'",
        ),
        ("data.inputs.photo.height=[1]", "data.inputs.photo.height = [1]: "),
        ("data.inputs.photo.height={a: 1}", "data.inputs.photo.height.a = 1: "),
        ("data.inputs.left.members=[[1]]", "data.inputs.left.members[0]: expected a single value, got [1]"),
        (
            "data.inputs.photo=3",
            "data.inputs.photo = 3: expected a section with keys of its own, data.inputs.photo.NAM",
        ),
        ("data.inputs.photo=[image]", "data.inputs.photo = ['image']: expected a section with keys of its own"),
        ("data.inputs=3", "data.inputs = 3: "),
        ("data.inputs=null", "data.inputs = None: "),
        ("data.inputs=[image]", "data.inputs = ['image']: "),
        ("data.inputs.={modality: image}", "data.inputs: has the name ''; names are of letters, digits"),
        (
            "data.inputs={a.b: {modality: image}}",
            "data.inputs.a.modality: is not set; set it to one of image, noisy, sound; a",
        ),
        ("data.inputs={a/b: {modality: image}}", "data.inputs: has the name 'a/b'; names are of letters"),
        ("data.inputs.photo.height=???", "data.inputs.photo.height = '???': is left open; write a value"),
        ("data.inputs.photo.height=0", "data.inputs.photo.height = 0: must be at least 1"),
        ("data.inputs.a-b 2={modality: image, height: 0}", "data.inputs.a-b 2.height = 0: must be at least 1"),
        ("data.inputs.photo.height=null", "data.inputs.photo.height = None: "),
    ],
)
def test_what_is_wrong_with_an_entry_is_one_sentence_with_its_key(file: Path, override: str, sentence: str) -> None:
    (problem,) = problems_of(file, override)
    assert problem.startswith(sentence)
    assert "\n" not in problem
    assert "Config" not in problem


def test_all_entries_that_are_wrong_are_told_at_once(file: Path) -> None:
    problems = problems_of(file, "data.inputs.a={}", "data.inputs.b.modality=c", "data.lanes=x", "model.inputs.d={}")
    assert [problem.split(":")[0].split(" =")[0] for problem in problems] == [
        "data.inputs.a.modality",
        "data.inputs.b.modality",
        "model.inputs.d.modality",
        "data.lanes",
    ]


def test_an_entry_that_follows_one_of_a_derived_class_is_of_the_class_that_it_derives_from(file: Path) -> None:
    run = read(Run, file, ["data.inputs.photo.modality=noisy", "model.inputs.photo.height=9"])
    assert run.data.inputs["photo"] == Noisy(height=224)
    assert run.model.inputs["photo"] == Image(height=9)
