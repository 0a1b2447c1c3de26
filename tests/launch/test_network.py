"""A trained network is known by its folder alone: its configuration, its weights, and what may be chosen of it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import xxhash
from safetensors.torch import save_file

from launch.run.trained import network
from launch.run.trained.network import Trained, check_weights, config_of, trained, with_weights
from model.interop.huggingface_files import byte_tokenizer
from model.modalities.text import TextInput
from model.perceiver import Perceiver
from trainer.checkpoint.choice import NEWEST
from trainer.distributed.world import World

ALONE = World(0, 1, 0, torch.device("cpu"))
MODEL = """
model:
  inputs: {points: {modality: array, shape: [5, 3]}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 4
  latent_width: 8
  nested_latents: [1, 4]
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
"""


RUN = """
data: {shards: shards, inputs: {image: {modality: image, height: 8, width: 8}}, lanes: 2}
model: {inputs: {image: {}}, outputs: {label: {kind: label, num_classes: 3}}}
"""


def imported(folder: Path, model: str = MODEL) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(model)
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """An imported network with nested latents."""
    folder = imported(tmp_path / "net")
    save_file(Perceiver(config_of(folder).model, seed=1).state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the configuration of a run and nothing else."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(RUN)
    return tmp_path / "run"


def test_only_what_is_read_and_in_which_parts_can_be_another(run: Path) -> None:
    assert config_of(run, ["train.global_batch=4"]).train.global_batch == 4
    assert config_of(run, ["data.eval_split=val", "data.num_threads=7"]).data.num_threads == 7
    for override in ("data.shards", "train.global_batch", "train.steps=3", "model.gelu=erf", "seed=1"):
        with pytest.raises(ValueError, match=rf"^{override}: only what is read can be another than the run's: data\."):
            config_of(run, [override])


def test_a_folder_with_the_configuration_of_an_export_needs_its_weights_and_one_with_checkpoints_is_a_run(
    run: Path,
) -> None:
    config_of(run)
    (run / "run.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file, but run\.yaml is there"):
        config_of(run)
    (run / "checkpoints").mkdir()
    config_of(run)
    (run / "model.safetensors").touch()
    assert not network.is_import(run)


def test_an_exported_run_keeps_the_frequencies_that_its_network_learned(run: Path) -> None:
    (run / "run.yaml").write_text((run / "config.yaml").read_text())
    (run / "model.safetensors").touch()
    image = config_of(run, ["data.inputs.image.height=16"]).model.ordered_inputs["image"]
    assert (image.grid, image.fourier_resolution) == ((16, 8), (8, 8))


def test_an_imported_network_is_taken_with_all_of_its_latents_or_the_first(net: Path) -> None:
    config = config_of(net)
    whole, first = (trained(net, config, NEWEST, ALONE, latents=latents) for latents in (0, 1))
    assert (whole.step, whole.weights, whole.notes, whole.folder.path) == (0, "trained", (), net)
    assert [each.network.config.num_latents for each in (whole, first)] == [4, 1]
    assert [each.config.model.num_latents for each in (whole, first)] == [4, 1]
    assert not whole.network.training
    weights = Perceiver(config.model, seed=1).state_dict()
    found = xxhash.xxh3_64()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].numpy().tobytes())
    assert whole.weights_hash == found.hexdigest()
    assert first.weights_hash == network._hash(first.network.state_dict()) != whole.weights_hash
    assert network._hash(dict(sorted(weights.items(), reverse=True))) == whole.weights_hash


@pytest.mark.parametrize(
    ("which", "weights", "told"),
    [
        ("best", "", "--checkpoint best: .* has no checkpoints but one network"),
        (NEWEST, "ema", "--weights ema: .* has the weights of one network alone"),
    ],
)
def test_of_one_network_nothing_can_be_chosen(net: Path, which: str, weights: str, told: str) -> None:
    config = config_of(net)
    check_weights(net, config, NEWEST, "")
    with pytest.raises(ValueError, match=told):
        trained(net, config, which, ALONE, weights)
    with pytest.raises(ValueError, match=told):
        check_weights(net, config, which, weights)


def test_weights_of_another_network_are_refused_by_where_they_lie(net: Path, run: Path) -> None:
    config = config_of(net).model
    wrong = Perceiver(replace(config, num_latents=2, nested_latents=()), seed=0).state_dict()
    for path, where in ((net, net / "model.safetensors"), (run, run / "checkpoints")):
        with pytest.raises(ValueError, match=rf"^{where}: not the weights of the network that {path} describes: "):
            with_weights(config, wrong, path, seed=0)


def test_an_answer_needs_what_is_read_and_where_it_is_asked() -> None:
    outputs = {"x": SimpleNamespace(asked_at=lambda: "flow.coordinates"), "y": SimpleNamespace(asked_at=lambda: "")}
    model = SimpleNamespace(answers=lambda: outputs, input_named=lambda name: name if name == "image" else None)
    config: Any = SimpleNamespace(model=model, data=SimpleNamespace(ordered_inputs=("audio", "flow", "image")))
    found = Trained(*[None] * 2, *[None] * 6)  # type: ignore[arg-type]  # nothing else is asked for
    assert replace(found, config=config).inputs == ("flow", "image")


IMAGES = "model: {inputs: {image: {modality: image, height: 8, width: 6, %s}}, outputs: {label: {kind: label}}}"


@pytest.mark.parametrize(
    ("says", "num_channels", "values"),
    [("num_channels: 1", 1, "bytes"), ("num_channels: 3, values: unit", 3, "unit")],
)
def test_the_pictures_of_an_import_are_those_that_its_network_reads(
    tmp_path: Path, says: str, num_channels: int, values: str
) -> None:
    section = config_of(imported(tmp_path / "net", IMAGES % says)).data.inputs["image"]
    assert (section.height, section.width) == (8, 6)
    assert (section.num_channels, section.values) == (num_channels, values)


TEXTS = "model: {inputs: {text: {modality: text, max_tokens: 8, embedding_width: 8}}, outputs: {%s}}"


@pytest.mark.parametrize(
    ("outputs", "hidden"),
    [("label: {kind: label}, text: {kind: text}", 0.15), ("label: {kind: label}", None)],
)
def test_words_are_hidden_where_they_are_answered(tmp_path: Path, outputs: str, hidden: float | None) -> None:
    masking = config_of(imported(tmp_path / "net", TEXTS % outputs)).data.inputs["text"].masking
    assert (masking.probability if masking else None) == hidden


def test_a_tokenizer_of_bytes_that_an_import_brings_is_none(tmp_path: Path) -> None:
    folder = imported(tmp_path / "net", TEXTS % "label: {kind: label}")
    for name, content in byte_tokenizer(TextInput(max_tokens=8, embedding_width=8)).items():
        (folder / name).write_text(json.dumps(content))
    section = config_of(folder).data.inputs["text"]
    assert (section.num_bytes, section.tokenizer) == (8, "")


@pytest.mark.parametrize(
    ("said", "token"), [({}, ""), ({"pad": "x"}, "x"), ({"pad": {"content": "x"}}, "x"), ({"pad": {"content": 3}}, ""),
                        ({"pad": {}}, ""), ({"pad": 3}, "")]
)  # fmt: skip
def test_a_special_token_is_a_text_or_the_content_of_one(said: dict[str, object], token: str) -> None:
    assert network._token_of(said, "pad") == token
