"""What an export writes beside the weights: names of classes, and how pictures and texts are prepared."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.run import RunConfig
from data_shards.config import DataConfig
from data_shards.loading.shard_folders import Places
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from launch.lifecycle.run_folder import RunFolder
from launch.run.trained import class_names, preprocessing
from launch.run.trained.network import config_of
from launch.run.trained.preprocessing import Surroundings
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_files import BYTE_VOCABULARY, PREPROCESSOR
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput

Door = Callable[..., list[dict[str, Any]]]
IMAGE = ImageInput(height=8, width=8)
TEXT = TextInput(max_tokens=8, embedding_width=16)
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


def network(image: ImageInput | None = None, text: TextInput | None = None) -> PerceiverConfig:
    given = {"image": image, "text": text}
    return PerceiverConfig(inputs={name: each for name, each in given.items() if each})


def test_pictures_are_prepared_as_the_run_prepared_them() -> None:
    around = Surroundings(resize="lanczos", centre_crop=0.5, fit="crop")
    files = around.hugging_face(network(image=IMAGE))
    assert list(files) == [PREPROCESSOR]
    settings = files[PREPROCESSOR]
    assert (settings["size"]["height"], settings["crop_size"]["height"], settings["resample"]) == (8, 16, 1)
    assert settings["do_center_crop"]
    assert not replace(around, fit="stretch").hugging_face(network(image=IMAGE))[PREPROCESSOR]["do_center_crop"]
    assert replace(around, fit="pad").hugging_face(network(image=IMAGE)) == {}
    assert Surroundings().hugging_face(network(image=IMAGE))[PREPROCESSOR]["resample"] == 3


def test_what_was_imported_goes_out_as_it_came() -> None:
    around = Surroundings(foreign={PREPROCESSOR: {"a": 1}, "special_tokens_map.json": {"b": 2}})
    assert around.hugging_face(network(image=IMAGE, text=TEXT)) == around.foreign


@pytest.mark.parametrize("file", [*sorted(TOKENIZER), "special_tokens_map.json", "added_tokens.json"])
def test_a_tokenizer_that_was_imported_in_any_file_gets_no_other_beside_it(file: str) -> None:
    assert set(Surroundings(foreign={file: {}}).hugging_face(network(text=TEXT))) == {file}


def test_texts_of_bytes_get_a_tokenizer_of_bytes_and_others_none() -> None:
    assert set(Surroundings(foreign={PREPROCESSOR: {}}).hugging_face(network(text=TEXT))) == {PREPROCESSOR, *TOKENIZER}
    assert TEXT.vocabulary == BYTE_VOCABULARY
    assert Surroundings().hugging_face(network(text=replace(TEXT, vocabulary=1000))) == {}
    assert Surroundings().hugging_face(network()) == {}


def test_classes_are_named_in_their_order() -> None:
    assert Surroundings(classes=("cat", "dog")).labels() == {
        "id2label": {"0": "cat", "1": "dog"},
        "label2id": {"cat": 0, "dog": 1},
    }
    assert Surroundings().labels() == {}


def run(image: ImageConfig | None, *, has_label: bool = True) -> RunConfig:
    outputs = {"label": LabelOutput(num_classes=2)} if has_label else {}
    data = DataConfig(shards="shards", inputs={"image": image} if image else {})
    return RunConfig(data=data, model=PerceiverConfig(outputs=outputs))


def test_what_the_data_of_a_run_says_is_written() -> None:
    found = preprocessing.of_run(run(ImageConfig(resize="lanczos", fit="stretch")), ("cat", "dog"))
    assert found == Surroundings(("cat", "dog"), "lanczos", 1.0, "stretch")
    usual = ImageConfig()
    expected = Surroundings(("cat", "dog"), usual.resize, usual.centre_crop, usual.fit)
    assert preprocessing.of_run(run(None), ("cat", "dog")) == expected
    assert preprocessing.of_run(run(None, has_label=False), ()).classes == ()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (ImageConfig(), []),
        (ImageConfig(num_channels=1), ["num_channels=1 and values=bytes"]),
        (ImageConfig(values="unit"), ["num_channels=3 and values=unit"]),
        (ImageConfig(num_channels=4, fit="pad"), ["as fit=pad of the input does", "num_channels=4 and values=bytes"]),
    ],
)
def test_why_a_picture_has_no_preprocessor_is_said_of_the_first_input(image: ImageConfig, said: list[str]) -> None:
    config = run(None)
    inputs = {"a": image, "b": ImageConfig(num_channels=2, resize="lanczos")}
    found = preprocessing.of_run(replace(config, data=replace(config.data, inputs=inputs)), ())
    assert [sentence.startswith("no preprocessor is written: ") for sentence in found.unwritten] == [True] * len(said)
    assert all(sentence.endswith(end) for sentence, end in zip(found.unwritten, said, strict=True)), found.unwritten
    assert found.resize == image.resize


def test_the_tokenizer_of_a_run_goes_with_it_and_bytes_need_none(tokenizers: dict[str, Path]) -> None:
    config = run(None)
    tokenizer = TextConfig(tokenizer=str(tokenizers["unigram"]), num_tokens=8)
    for inputs in ({"a": TextConfig(num_bytes=8), "b": ImageConfig()}, {"a": TextConfig(num_bytes=8), "b": tokenizer}):
        found = preprocessing.of_run(replace(config, data=replace(config.data, inputs=inputs)), ())
        assert ("tokenizer.json" in found.foreign, list(found.pads)) == (
            (True, ["b"]) if inputs["b"] is tokenizer else (False, [])
        )


def test_numbers_of_classes_that_are_none_are_refused(tmp_path: Path) -> None:
    for names in ({"0": "cat", "x": "dog"}, ["cat", "dog"], {"x": "cat"}):
        with pytest.raises(ValueError, match="id2label: expected names by the numbers of their classes, got"):
            preprocessing.of_hugging_face(tmp_path, {"id2label": names})


def test_a_file_of_an_export_is_indented_and_in_its_own_letters(tmp_path: Path) -> None:
    preprocessing.write({"a.json": {"Hündchen": [1]}}, tmp_path)
    assert (tmp_path / "a.json").read_bytes().decode() == '{\n "Hündchen": [\n  1\n ]\n}'


def test_a_run_keeps_the_names_of_what_it_answers_and_loses_those_of_other_shards(door: Door, tmp_path: Path) -> None:
    folder, config = RunFolder(tmp_path), run(None)
    outputs = {**config.model.outputs, "age": LabelOutput(num_classes=2, target="age")}
    config = replace(config, model=replace(config.model, outputs=outputs))
    there = {"": ("Hündchen", "cat"), "age": ("young", "old"), "size": ("s",)}
    door("data_shards.loading.streams.all_label_names", there)
    class_names.keep(config, folder, Places(config.data))
    kept = '{\n "age": [\n  "young",\n  "old"\n ],\n "label": [\n  "Hündchen",\n  "cat"\n ]\n}\n'
    assert folder.class_names_path.read_text(encoding="utf-8") == kept
    assert class_names.of(tmp_path, config) == ({"age": ("young", "old"), "": ("Hündchen", "cat")}, ())
    # Another number of names is that of other shards.
    fewer = replace(config, model=replace(config.model, outputs={"label": LabelOutput(num_classes=3)}))
    assert class_names.of(tmp_path, fewer) == ({}, ("class names are not known, their numbers stand for them",))
    door("data_shards.loading.streams.all_label_names", {"size": ("s",)})
    class_names.keep(config, folder, Places(config.data))
    assert not folder.class_names_path.exists()
    class_names.keep(config, folder, Places(config.data))
    assert not folder.class_names_path.exists()
    asked = door("data_shards.loading.streams.all_label_names", {})
    assert class_names.of(tmp_path, run(None, has_label=False)) == ({}, ())
    assert asked == []


@pytest.mark.parametrize("error", [ValueError("are gone"), OSError("are away")])
def test_what_an_export_cannot_know_or_say_is_noted(door: Door, tmp_path: Path, error: Exception) -> None:
    def fail(**_: object) -> None:
        raise error

    door("data_shards.loading.streams.all_label_names", fail)
    config = run(ImageConfig(fit="pad"))
    known, notes = class_names.of(tmp_path, config)
    found = preprocessing.of_run(config, (), notes)
    assert known == {}
    [names], [pad] = found.notes, found.unwritten
    assert names.startswith("class names are not known")
    assert names.endswith(str(error))
    assert "cannot pad, as fit=pad of the input does" in pad


def test_what_hugging_face_says_comes_back_from_what_was_kept(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    for name in (
        PREPROCESSOR,
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ):
        (theirs / name).write_text(json.dumps({"is": name}))
    (theirs / "other.json").write_text("{}")
    found = preprocessing.of_hugging_face(theirs, {"id2label": {"1": "dog", "0": "Hündchen"}})
    assert found.classes == ("Hündchen", "dog")
    assert len(found.foreign) == 5
    preprocessing.keep(found, ours)
    assert len(list(ours.iterdir())) == 6
    assert "Hündchen" in (ours / "classes.json").read_text(encoding="utf-8")
    assert preprocessing.of_import(ours) == found


def test_pictures_of_an_import_are_prepared_as_its_preprocessor_says(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    own = Surroundings(resize="bilinear", centre_crop=1.0)
    preprocessing.write(own.hugging_face(network(image=IMAGE)), theirs)
    found = preprocessing.of_hugging_face(theirs, {})
    assert (found.resize, found.centre_crop, found.fit) == ("bilinear", 1.0, "crop")
    preprocessing.keep(found, ours)
    assert preprocessing.of_import(ours) == found
    # The file of the network itself, and what its data are read by.
    model = "{inputs: {image: {modality: image, height: 8, width: 8}}, outputs: {label: {kind: label}}}"
    (ours / "config.yaml").write_text(f"model: {model}")
    (ours / "model.safetensors").touch()
    section = config_of(ours).data.inputs["image"]
    assert (section.resize, section.centre_crop, section.fit) == ("bilinear", 1.0, "crop")


@pytest.mark.parametrize("said", [{}, {"id2label": None}, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}])
def test_names_that_hugging_face_made_up_are_none(tmp_path: Path, said: dict[str, object]) -> None:
    found = preprocessing.of_hugging_face(tmp_path, said)
    assert found == Surroundings()
    preprocessing.keep(found, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert preprocessing.of_import(tmp_path) == Surroundings()


def test_two_classes_of_one_name_stay_two_by_their_numbers(tmp_path: Path) -> None:
    names = {"0": "crane", "1": "sofa", "2": "crane"}
    found = preprocessing.of_hugging_face(tmp_path, {"id2label": names})
    assert found.classes == ("crane (0)", "sofa", "crane (2)")
    assert len(found.labels()["label2id"]) == 3


def test_a_class_without_a_name_between_named_ones_gets_its_number(tmp_path: Path) -> None:
    assert preprocessing.of_hugging_face(tmp_path, {"id2label": {"0": "cat", "2": "dog"}}).classes == ("cat", "LABEL_1")
