"""A configuration that includes another one states what differs, and nothing else."""

from pathlib import Path

import pytest

from configs.files import ConfigError
from configs.network import network_config
from configs.run import load

BASE = """
model: {num_latents: 8, inputs: {photo: {modality: image}, sound: {modality: audio}},
        outputs: {label: {kind: label, num_classes: 10}}}
data: {inputs: {photo: {modality: image, height: 8, width: 8}, sound: {modality: audio, num_samples: 800}}}
train: {steps: 40, global_batch: 16}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def overlay(base: Path, text: str) -> Path:
    path = base.with_name("overlay.yaml")
    path.write_text(f"include: base.yaml\n{text}")
    return path


def test_an_overlay_is_the_file_that_it_includes_with_what_it_says_itself(base: Path) -> None:
    assert load(overlay(base, "")) == load(base)
    # In sections or with dots; a section that is null is taken away, one that is new is added.
    text = "train: {steps: 7}\nmodel.num_latents: 4\ndata.inputs: {sound: null, other: {modality: image}}\n"
    text += "model.inputs: {sound: null, other: {modality: image}}\n"
    config = load(overlay(base, text))
    assert (config.train.steps, config.train.global_batch, config.model.num_latents) == (7, 16, 4)
    assert set(config.data.inputs) == {"photo", "other"}
    assert load(overlay(base, text), ["train.steps=9"]).train.steps == 9


def test_of_several_files_that_are_included_a_later_one_counts(base: Path) -> None:
    base.with_name("short.yaml").write_text("train: {steps: 7, global_batch: 8}\n")
    path = base.with_name("overlay.yaml")
    path.write_text("include: [base.yaml, short.yaml]\ntrain.global_batch: 24\n")
    config = load(path)
    assert (config.train.steps, config.train.global_batch, config.model.num_latents) == (7, 24, 8)
    path.write_text("include: [short.yaml, base.yaml]\n")
    assert load(path) == load(base)
    path.write_text("include: [base.yaml]\n")
    assert load(path) == load(base)


def test_what_is_included_is_beside_the_file_or_comes_with_the_product(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = overlay(base, "")
    monkeypatch.chdir("/")
    assert load(path) == load(base)
    ours = tmp_path / "ours.yaml"
    ours.write_text("include: digits\nseed: 7\n")
    assert load(ours).seed == 7
    assert load(ours).model == load(Path("digits")).model
    network = tmp_path / "network.yaml"
    network.write_text("include: paper/p1\nmodel: {num_latents: 64}\n")
    assert network_config(network).num_latents == 64


def test_plugins_of_the_included_file_are_those_beside_it(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    (tmp_path / "first" / "mine.py").write_text("")
    (tmp_path / "first" / "base.yaml").write_text(f"plugins: [mine.py]{BASE}")
    path = tmp_path / "second" / "overlay.yaml"
    path.write_text("include: ../first/base.yaml\n")
    with pytest.raises(ValueError, match=r"first/mine.py: has no class"):
        load(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("include: other.yaml\n", "include = 'other.yaml': no such file, neither .*other.yaml nor one of ours"),
        ("include: [[base.yaml]]\n", "include = .*base.yaml.*: expected the name of a file, or a list of names"),
        ("include: []\n", r"include = \[\]: expected the name of a file, or a list"),
        ("include:\n", "include = None: expected the name of a file"),
        ("include: [base.yaml, again.yaml]\n", "include = 'again.yaml': includes 'base.yaml' itself; only one level"),
        ("include: again.yaml\n", "include = 'again.yaml': includes 'base.yaml' itself; only one level"),
        ("include: overlay.yaml\n", "include = 'overlay.yaml': includes 'overlay.yaml' itself; only"),
        ("include: base.yaml\ntrain.step: 7\n", "train.step = 7: unknown key; did you mean train.steps?"),
        ("include: base.yaml\ntrain: {steps: 7}\ntrain.steps: 8\n", "train.steps: stands 2 times in the file"),
    ],
)
def test_what_cannot_be_included_is_one_sentence(base: Path, text: str, sentence: str) -> None:
    (base.with_name("again.yaml")).write_text("include: base.yaml\n")
    path = base.with_name("overlay.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load(path)
