"""`perceiver eval` takes other data than the run's, and networks that were imported."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import MODEL, NUM_TEST, PICTURES, MakeRun, make_run, picture, predicted, run

from data_shards.sources import table
from launch.answers.loaded_run import load_run
from launch.networks import imports, network_files
from launch.run.trained import evaluation
from launch.run.trained.network import config_of

__all__ = ["make_run", "run"]
EEG = f"""
data: {{inputs: {{eeg: {{modality: array, members: [eeg.npy], shape: [8, 2]}}}}, lanes: 2, window: 8}}
model:
  inputs: {{eeg: {{}}}}
  outputs: {{label: {{kind: label, num_classes: 3}}}}{MODEL}"""


def shards(tmp_path: Path, name: str, labels: list[str], **split: str) -> Path:
    rows = [
        {"image": picture(tmp_path / f"{name}_{number}.png", 40 + number), "label": label, **split}
        for number, label in enumerate(labels)
    ]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / f"{name}.jsonl", tmp_path / name)
    return tmp_path / name


def test_other_shards_are_evaluated_and_what_was_known_of_the_run_stays(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation.main(run, as_json=True)
    own = capsys.readouterr().out
    other = shards(tmp_path, "other", ["class 0", "class 1", "class 2", "class 0"], split="val")
    evaluation.main(run, [f"data.shards={other}"], split="val", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["split"], found["shards"]) == (4, "val", str(other))
    assert (run / "evaluation.json").read_text() == own
    assert json.loads(own)["samples"] == NUM_TEST
    (kept,) = (run / "evaluations").iterdir()
    assert kept.name.startswith("other-")
    assert json.loads((kept / "evaluation.json").read_text()) == found
    rows = predicted(run, other, out=tmp_path / "out.jsonl", split="val")
    assert sum(row["label"] == row["label_true"] for row in rows) / 4 == found["metrics"]["label"]["accuracy"]["all"]


def test_other_classes_and_other_networks_are_refused(run: Path, tmp_path: Path) -> None:
    other = shards(tmp_path, "other", ["class 0", "dog", "class 2"], split="val")
    with pytest.raises(ValueError, match=r"\(only there: dog; only in the run: class 1\); build them again"):
        evaluation.main(run, [f"data.shards={other}"], split="val")
    more = shards(tmp_path, "more", list("abcdefghijkl"), split="val")
    with pytest.raises(
        ValueError, match=r"only there: a, b, .*, j, 2 more; only in the run: class 0, class 1, class 2"
    ):
        evaluation.main(run, [f"data.shards={more}"], split="val")
    with pytest.raises(ValueError, match=r"model\.num_latents=8: only what is read can be another"):
        evaluation.main(run, ["model.num_latents=8"])
    assert not (run / "evaluations").exists()


def test_images_of_another_size_are_read_at_the_frequencies_that_the_network_learned(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = ["data.inputs.image.height=16", "data.inputs.image.width=12"]
    image = config_of(run, larger).model.ordered_inputs["image"]
    assert (image.grid, image.fourier_resolution) == ((16, 12), (8, 8))
    assert config_of(run).model.ordered_inputs["image"].positions.max_resolution == ()
    assert evaluation.main(run, larger, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == NUM_TEST


TARGETS = PICTURES.replace("lanes: 2", "labels: [colour], values: [size], lanes: 2").replace(
    "outputs: {label:",
    "outputs: {size: {kind: value, num_values: 1}, colour: {kind: label, target: colour, num_classes: 2}, label:",
)
ROW = {"label": "class 0", "label.colour": "red", "value.size": 1.5}
OTHERS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "others of everything": (
        {"label": ["class 0", "class 2"], "label.colour": ["red", "green"], "value.size": [1.5, 2.5]},
        (
            "its label has other classes than output label (only there: none; only in the run: class 1)",
            "its label 'colour' has other classes than output colour (only there: green; only in the run: blue)",
            "its value 'size' has 2 numbers, and output size answers 1",
        ),
    ),
    "no targets": (
        {"label": None, "label.colour": None, "value.size": None},
        (
            "has no label, which output label is compared with (labels by name: none)",
            "has no label 'colour', which output colour is compared with",
            "has no value 'size', which output size is compared with (values: none)",
        ),
    ),
    "another modality": (
        {"image": None, "text": "words"},
        ("has the input image (image, .png", "only .cls, .json, .txt"),
    ),
}


def test_of_other_data_the_sentence_says_what_differs_and_never_to_change_the_network(
    make_run: MakeRun, tmp_path: Path
) -> None:
    def rows(changes: dict[str, object], num_samples: int = 4, **more: object) -> list[dict[str, object]]:
        found = []
        for number in range(num_samples):
            row: dict[str, object] = {"image": picture(tmp_path / f"{number}.png", number)} | ROW | more
            row |= {"label": f"class {number % 3}", "label.colour": ("red", "blue")[number % 2]}
            for key, value in changes.items():
                row[key] = value[number % 2] if isinstance(value, list) and key != "value.size" else value
            found.append({key: value for key, value in row.items() if value is not None})
        return found

    run = make_run(TARGETS, rows({}, 16))
    for kind, (changes, expected) in OTHERS.items():
        file = tmp_path / "other.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(changes, split="test")))
        table.build(file, tmp_path / kind)
        with pytest.raises(ValueError, match="`perceiver predict`") as told:
            evaluation.check(run, [f"data.shards={tmp_path / kind}"])
        assert all(sentence in str(told.value) for sentence in expected), kind
        # What would make it another network is no remedy.
        assert not any(words in str(told.value) for words in ("set it to", "model.")), kind


def test_of_other_data_in_another_shape_the_first_samples_tell(make_run: MakeRun, tmp_path: Path) -> None:
    def rows(*shape: int) -> list[dict[str, object]]:
        np.save(tmp_path / f"{shape}.npy", np.zeros(shape, np.float32))
        splits = ["test"] * 6 + ["train"] * 8
        return [{"member.eeg": f"{shape}.npy", "label": f"class {n % 3}", "split": s} for n, s in enumerate(splits)]

    run = make_run(EEG, rows(8, 2))
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(8, 3)))
    table.build(file, tmp_path / "other")
    words = r"first samples .*\(8, 3\); expected \(any, 2\)\); build them again"
    with pytest.raises(ValueError, match=words) as told:
        evaluation.main(run, [f"data.shards={tmp_path / 'other'}"])
    assert "max_bad_rate" not in str(told.value)
    assert not (run / "evaluations").exists()


def test_an_imported_network_is_evaluated_and_answers_files_as_the_run_does(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = tmp_path / "imported"
    imported.mkdir()
    network = load_run(run).network
    model = """model:
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
  inputs: {image: {modality: image, height: 8, width: 8}}
  outputs: {label: {kind: label, num_classes: 3}}
"""
    (imported / "config.yaml").write_text(model)
    save_file(network.state_dict(), imported / "model.safetensors")
    (imported / "classes.json").write_text(json.dumps({"classes": ["class 0", "class 1", "class 2"]}))
    evaluation.main(run, as_json=True)
    own = json.loads(capsys.readouterr().out)["metrics"]
    # A preprocessor of Hugging Face's crops what the run does not.
    whole = "data.inputs.image.centre_crop=1.0"
    evaluation.main(imported, [f"data.shards={run}_shards", whole], as_json=True)
    assert json.loads(capsys.readouterr().out)["metrics"] == own
    found = load_run(imported).predict([tmp_path / "0.png"])
    assert found[0]["label"] in {"class 0", "class 1", "class 2"}
    with pytest.raises(ValueError, match="has no checkpoints but one network"):
        evaluation.main(imported, [f"data.shards={run}_shards"], which="best")
    with pytest.raises(ValueError, match=r"data\.inputs\.image delivers \(16, 8, 3\)"):
        evaluation.check(imported, ["data.inputs.image.height=16"])


def test_an_export_of_a_run_that_is_imported_again_is_evaluated_to_the_figures_of_the_run(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "image": picture(tmp_path / f"{number}.png", number, (20, 20, 3)),
            "label": f"class {number % 3}",
            "split": "test" if number < 24 else "train",
        }
        for number in range(36)
    ]
    config = PICTURES.replace("num_classes: 3", "num_classes: 3, pooling: query")
    # The positions and the residual that Hugging Face's model has.
    config = config.replace("{image: {}}", "{image: {positions: {max_resolution: [224, 224]}}}")
    run = make_run(config.replace("model:", "model:\n  decoder: {query_residual: true}"), rows)
    evaluation.main(run, as_json=True)
    own = json.loads(capsys.readouterr().out)["metrics"]
    network_files.export(
        run, tmp_path / "theirs", onnx=False, safetensors=False, as_json=True, which="newest", weights="", latents=0
    )
    imports.import_network(tmp_path / "theirs", tmp_path / "again", as_json=True)
    section = config_of(tmp_path / "again").data.inputs["image"]
    assert (section.resize, section.centre_crop) == ("bilinear", 1.0)
    capsys.readouterr()
    evaluation.main(tmp_path / "again", [f"data.shards={run}_shards"], as_json=True)
    assert json.loads(capsys.readouterr().out)["metrics"] == own
