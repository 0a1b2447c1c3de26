"""`perceiver eval` takes other data than the run's, and networks that were imported."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import NUM_TEST, make_run, picture, predicted, run

from data_shards.sources import table
from launch.answers.loaded_run import load_run
from launch.run.trained import evaluation

__all__ = ["make_run", "run"]


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
    with pytest.raises(ValueError, match="class 1 is 'class 2' there and 'class 1' in the run"):
        evaluation.main(run, [f"data.shards={other}"], split="val")
    more = shards(tmp_path, "more", ["a", "b", "c", "d"], split="val")
    with pytest.raises(ValueError, match=r"has 4 classes, but model.outputs.label.num_classes = 3"):
        evaluation.main(run, [f"data.shards={more}"], split="val")
    with pytest.raises(ValueError, match=r"model\.num_latents=8: only what is read can be another"):
        evaluation.main(run, ["model.num_latents=8"])
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
