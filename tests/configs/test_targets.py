"""What the data's targets ask for, the network must answer."""

from pathlib import Path

import pytest

from configs.files import ConfigError
from configs.run import load

CLASSES = """
data:
  inputs: {image: {modality: image, height: 8, width: 8}}
model:
  inputs: {image: {height: 8, width: 8}}
  outputs: {label: {kind: label, num_classes: 10}}
train: {global_batch: 32}
"""
WORDS = """
data:
  inputs: {text: {modality: text, num_bytes: 32, masking: {probability: 0.15}}}
model:
  inputs: {text: {max_tokens: 32}}
  outputs: {text: {kind: text}}
train: {global_batch: 32}
"""
AGAIN = """
data:
  inputs: {audio: {modality: audio, num_samples: 64}, image: {modality: image, height: 8, width: 8}}
model:
  inputs:
    audio: {num_samples: 64, patch: 8}
    image: {height: 8, width: 8}
  outputs:
    audio: {kind: grid, shape: [8], num_channels: 8}
    image: {kind: grid, shape: [8, 8]}
train: {global_batch: 32}
"""


PAIRS = """
data:
  inputs: {flow: {modality: flow, height: 8, width: 8}}
model:
  inputs: {flow: {height: 8, width: 8}}
  outputs: {flow: {kind: flow}}
train: {global_batch: 32}
"""


LABEL = "model.outputs.label={kind: label, num_classes: 3}"
LABELS = "model.outputs.colour.kind=labels"
FLOW = "model.outputs.flow.kind=flow"
CLOUD = "data.inputs.cloud={modality: points, num_points: 8}"
SKY = "model.outputs.sky={kind: points, target: cloud, coordinates: cloud,"
COLOUR = "model.outputs.colour={kind: label, target: colour, num_classes: 3}"
AGE = "model.outputs.age.kind=value"


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    (tmp_path / "run.yaml").write_text(text)
    try:
        load(tmp_path / "run.yaml", overrides)
    except ConfigError as error:
        return [problem.split(" = ")[0] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "overrides", "keys"),
    [
        (CLASSES, [], []),
        (CLASSES, ["data.multi_label=true"], ["data.multi_label", "model.outputs.label"]),
        (CLASSES, ["data.multi_label=true", "model.outputs.label.kind=labels"], []),
        (CLASSES, ["model.outputs.label.kind=labels"], ["model.outputs.label"]),
        (CLASSES, ["data.mixup={}"], []),
        (CLASSES, ["model.outputs.text.kind=text"], ["model.outputs.text", "model.outputs.text"]),
        (CLASSES, [COLOUR], ["model.outputs.colour"]),
        (CLASSES, ["data.labels=[colour]"], ["data.labels"]),
        (CLASSES, [COLOUR, "data.labels=[colour]"], []),
        (CLASSES, [COLOUR, "data.labels=[colour, colour]"], ["data.labels"]),
        (CLASSES, [COLOUR, LABELS], ["model.outputs.colour", "model.outputs.colour.target"]),
        (CLASSES, ["model.outputs.label.target=image", "data.labels=[image]"], ["data.labels"]),
        (CLASSES, [AGE], ["model.outputs.age"]),
        (CLASSES, ["data.values=[age]"], ["data.values"]),
        (CLASSES, [AGE, "data.values=[age]"], []),
        (CLASSES, ["model.outputs.video={kind: grid, shape: [2, 8, 8], num_channels: 3}"], ["model.outputs.video"]),
        (CLASSES, ["model.outputs.video.kind=grid"], ["model.outputs.video", "model.outputs.video.shape"]),
        # What is only compared with need not be read.
        (CLASSES, [CLOUD, f"{SKY} num_axes: 3, num_channels: 3}}"], []),
        (CLASSES, [f"{SKY} num_axes: 3, num_channels: 3}}"], ["model.outputs.sky", "model.outputs.sky"]),
        (CLASSES, [CLOUD, f"{SKY} num_channels: 3}}"], 2 * ["model.outputs.sky.num_axes"]),
        (CLASSES, [CLOUD], ["data.inputs.cloud"]),
        (WORDS, [], []),
        (WORDS, ["model.outputs.label={kind: label, num_classes: 3}"], []),
        (WORDS, ["model.outputs.text=null", LABEL], ["data.inputs.text.masking"]),
        (PAIRS, [], []),
        (PAIRS, ["model.outputs.flow=null", LABEL], ["data.inputs.flow"]),
        (PAIRS, ["data.inputs.flow.test_height=4"], ["data.inputs.flow.test_height"]),
        (
            CLASSES,
            ["model.inputs.flow={modality: flow, height: 8, width: 8}", FLOW],
            ["model.outputs.flow", "model.outputs.flow"],
        ),
        (AGAIN, [], []),
        (AGAIN, [LABEL, "data.mixup={}"], ["data.mixup"]),
        (AGAIN, ["model.outputs.image.shape=[8, 4]"], ["model.outputs.image.shape"]),
        (AGAIN, ["model.outputs.image.num_channels=1"], ["model.outputs.image.shape"]),
        (AGAIN, ["model.outputs.audio.shape=[16]"], ["model.outputs.audio.shape"]),
        (AGAIN, ["model.outputs.again={kind: grid, target: image}"], []),
        (AGAIN, ["model.outputs.image.train_queries=65"], ["model.outputs.image.train_queries"]),
        (WORDS, ["data.inputs.text.masking.probability=1.5"], ["data.inputs.text.masking.probability"]),
    ],
)
def test_targets_and_answers_must_agree(tmp_path: Path, text: str, overrides: list[str], keys: list[str]) -> None:
    found = problems(tmp_path, text, *overrides)
    assert sorted(key for key in found if key.startswith(("data.", "model.outputs."))) == keys


FIELD = """
data:
  inputs:
    seen: {modality: array, members: seen.npy, shape: [6, 2], coordinates: at.npy, num_axes: 3}
    far: {modality: array, members: far.npy, shape: [4], axes: [place], coordinates: where.npy, num_axes: 3, nan: keep}
model:
  inputs: {seen: {positions: {num_bands: 2}}}
  outputs: {field: {kind: points, target: far, coordinates: far.coordinates, num_axes: 3}}
  num_latents: 4
  latent_width: 8
  self_attend: {num_heads: 2}
"""


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.inputs.seen.coordinates=''", "data.inputs.seen.num_axes"),
        ("model.inputs.seen.num_axes=2", "model.inputs.seen.num_axes"),
        ("model.outputs.field.num_axes=2", "model.outputs.field.num_axes"),
        ("model.outputs.field.coordinates=nowhere.coordinates", "model.outputs.field"),
        ("data.inputs.seen.nan=keep", "data.inputs.seen.nan"),
    ],
)
def test_coordinates_of_data_and_network_must_agree(tmp_path: Path, override: str, key: str) -> None:
    path = tmp_path / "field.yaml"
    path.write_text(FIELD)
    config = load(path)
    assert config.model.inputs["seen"].places == (6, 3)
    with pytest.raises(ConfigError) as refused:
        load(path, [override])
    assert key in [problem.split(" = ")[0].split(":")[0] for problem in refused.value.problems]


LABEL = """
data:
  inputs: {image: {modality: image, height: 8, width: 8}, label: {modality: label, num_classes: 10}}
model:
  inputs: {image: {}, label: {}}
  outputs: {label: {kind: label, num_classes: 10}}
  mask_tokens: true
train: {global_batch: 32}
"""


def test_a_label_that_is_hidden_needs_a_mask_token(tmp_path: Path) -> None:
    path = tmp_path / "label.yaml"
    path.write_text(LABEL)
    assert load(path).model.inputs["label"].num_classes == 10
    shown = ["data.inputs.label.hide=0", "data.inputs.label.hide_in_evaluation=false"]
    load(path, ["model.mask_tokens=false", *shown])
    for some in ([], shown[:1], shown[1:]):
        with pytest.raises(
            ConfigError, match=r"data\.inputs\.label = .*: hides it behind the network's mask token: set"
        ):
            load(path, ["model.mask_tokens=false", *some])
    with pytest.raises(ConfigError, match=r"model\.inputs\.label\.num_classes"):
        load(path, ["model.inputs.label.num_classes=9"])
