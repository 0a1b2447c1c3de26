"""The tiny run of a configuration has its kinds and its classes; sizes and lengths are smaller."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from torch import nn

from configs import plugins
from configs.run import load
from configs.tiny import load_tiny, tiny_overrides
from model.config.custom_network import CustomNetwork

CONFIGS = Path(__file__).parents[2] / "configs"
ODD = """
data:
  inputs:
    photo: {modality: image, height: 35, width: 49, num_channels: 1}
    sound: {modality: audio, sample_rate: 8000, num_samples: 8000, log_mel: {num_bins: 5}}
    eeg: {modality: array, shape: [20, 4]}
    seen: {modality: image, height: 40, width: 40}
model:
  inputs: {photo: {patch: 7}, sound: {patch: 2}, eeg: {}}
  outputs: {label: {kind: label, num_classes: 3}, seen: {kind: grid, shape: [40, 40], num_channels: 3}}
  latent_width: 6
  self_attend: {num_heads: 3}
train: {steps: 1, global_batch: 16}
"""


@pytest.mark.parametrize("name", ["digits", "av_digits", "digits_autoencoding", "pictures"])
def test_every_named_run_has_a_tiny_one(name: str) -> None:
    whole, tiny = load(CONFIGS / f"{name}.yaml"), load_tiny(CONFIGS / f"{name}.yaml")
    assert tiny.train.steps == 2
    assert tiny.model.num_tokens <= whole.model.num_tokens
    assert {key: type(each) for key, each in tiny.data.inputs.items()} == {
        key: type(each) for key, each in whole.data.inputs.items()
    }
    assert tiny.model.outputs["label"].num_classes == whole.model.outputs["label"].num_classes


def test_patches_divide_what_is_left_and_what_has_no_known_size_stays(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD)
    tiny = load_tiny(path)
    photo, sound, eeg = (tiny.data.inputs[name] for name in ("photo", "sound", "eeg"))
    assert (photo.height, photo.width) == (35, 49)
    assert sound.shape == (16, 5)
    assert eeg.shape == (20, 4)
    assert tiny.model.outputs["seen"].shape == tiny.data.inputs["seen"].shape[:2] == (8, 12)
    assert (tiny.train.steps, tiny.train.global_batch, tiny.model.latent_width) == (1, 8, 6)


def test_latents_of_several_sizes_stay_those_of_several_sizes() -> None:
    sizes = ["model.num_latents=64", "model.nested_latents=[16, 32, 64]"]
    assert load_tiny(CONFIGS / "digits.yaml").model.nested_latents == ()
    whole = load(CONFIGS / "digits.yaml", sizes)
    tiny = load(CONFIGS / "digits.yaml", [*sizes, *tiny_overrides(whole)])
    assert (tiny.model.num_latents, tiny.model.nested_latents) == (8, (4, 8))


@dataclass(frozen=True)
class Own(CustomNetwork):
    kind: Literal["own"] = "own"

    def module(self, inputs: object, outputs: object) -> nn.Module:  # nobody asks
        raise NotImplementedError


def test_of_a_network_of_a_plugin_only_inputs_and_answers_become_smaller(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD)
    whole = load(path)
    keys = {
        pair.partition("=")[0] for pair in tiny_overrides(replace(whole, model=replace(whole.model, network=Own())))
    }
    assert {"train.global_batch", "data.inputs.seen.height", "model.outputs.seen.shape"} <= keys
    assert not {key for key in keys if key.startswith("model.") and key.split(".")[1] not in ("inputs", "outputs")}


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar, Literal

from data_shards.modalities.modality import Modality
from model.modalities.input import Input


@dataclass(frozen=True)
class Gram(Modality):
    modality: Literal["gram"] = "gram"
    num_frames: int = 64
    num_bands: int = 16

    @property
    def shape(self):
        return (self.num_frames, self.num_bands)

    @property
    def sizes(self):
        return {"num_frames": self.num_frames, "num_bands": self.num_bands}

    def prepare(self, found, rng):
        raise NotImplementedError

    @staticmethod
    def decoded_shape(role, content):
        raise NotImplementedError

    @staticmethod
    def draw(axes, found):
        raise NotImplementedError


@dataclass(frozen=True)
class GramInput(Input):
    modality: Literal["gram"] = "gram"
    sizes: ClassVar[tuple[str, ...]] = ("num_frames", "num_bands")
    num_frames: int = 0
    num_bands: int = 0
    project_to: int = 64

    @property
    def shape(self):
        return (self.num_frames, self.num_bands)

    @property
    def grid(self):
        return (self.num_frames,)

    @property
    def content_width(self):
        return self.project_to

    def adapter(self):
        raise NotImplementedError
"""


def test_a_size_that_the_data_deliver_is_theirs_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "gram.py").write_text(PLUGIN)
    (tmp_path / "gram.yaml").write_text(
        "plugins: [gram.py]\ndata: {inputs: {gram: {modality: gram}}}\n"
        "model: {inputs: {gram: {}}, outputs: {label: {kind: label, num_classes: 3}}}\n"
    )
    with plugins.kept():
        tiny = load_tiny(tmp_path / "gram.yaml")
    # num_bands is also what positions have, which become fewer.
    read = tiny.model.inputs["gram"]
    assert (read.shape, read.project_to) == (tiny.data.inputs["gram"].shape, 8) == ((2, 16), 8)


def test_what_is_typed_counts(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD)
    assert load_tiny(path, ["train.steps=7", "model.num_latents=9"]).train.steps == 7
    with pytest.raises(ValueError, match="unknown key; did you mean train"):
        load_tiny(path, ["train.step=7"])
