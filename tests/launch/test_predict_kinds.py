"""Every kind of answer is written for a user by its task: words, numbers, vectors, files; a plug-in's own too."""

import json
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from test_predict import MODEL, MakeRun, make_run, picture, predicted

from data_shards.modalities.decoding.flow import motion
from data_shards.modalities.encoding import flo
from launch.answers.answering import Answering, samples_of
from launch.answers.loaded_run import load_run
from launch.run.trained import evaluation

__all__ = ["make_run"]
SMALL = MODEL.replace("global_batch: 8", "global_batch: 2")
FOCAL = Path(__file__).parents[2] / "examples" / "plugins" / "focal.py"
SEVERAL = f"""
data:
  inputs:
    photo: {{modality: image, members: [png], height: 8, width: 8}}
    sound: {{modality: audio, num_samples: 64, sample_rate: 8000}}
  labels: [digit]
  values: [size]
  lanes: 2
  window: 8
model:
  inputs: {{photo: {{}}, sound: {{patch: 8}}}}
  outputs:
    digit: {{kind: label, target: digit, num_classes: 2}}
    size: {{kind: value, num_values: 2}}
    near: {{kind: embedding, pair: [photo, sound], width: 4}}
    photo: {{kind: grid, positions: {{num_bands: 2}}}}
    sound: {{kind: grid, shape: [8], positions: {{num_bands: 2}}}}{SMALL}"""


def recording(path: Path, seed: int, length: int = 64) -> str:
    samples = np.random.default_rng(seed).integers(-9000, 9000, length)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())
    return path.name


def test_a_table_gives_several_inputs_and_every_output_has_its_columns(make_run: MakeRun, tmp_path: Path) -> None:
    rows = [
        {
            "image": picture(tmp_path / f"{number}.png", number),
            "audio": recording(tmp_path / f"{number}.wav", number),
            "label.digit": "one" if number % 2 else "two",
            "value.size": [number, 2.5],
        }
        for number in range(4)
    ]
    run = make_run(SEVERAL, rows)
    (tmp_path / "new.csv").write_text("photo,sound,key\n0.png,0.wav,both\n0.png,,photo\n,1.wav,sound\n,,none\n")
    both, photo, sound = predicted(run, tmp_path / "new.csv", out=tmp_path / "out.jsonl", top=2)
    assert [row["key"] for row in (both, photo, sound)] == ["both", "photo", "sound"]
    assert {both["digit"], both["digit_2"]} == {"one", "two"}
    assert len(both["size"]) == 2
    assert (len(both["near_photo"]), photo["near_sound"]) == (4, None)
    np.testing.assert_allclose(both["near_photo"], photo["near_photo"], rtol=1e-3)
    assert sound["near_sound"] is not None
    with Image.open(tmp_path / both["photo"]) as drawn:
        assert (drawn.format, drawn.size, drawn.mode) == ("PNG", (8, 8), "RGB")
    with wave.open(str(tmp_path / both["sound"])) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 64)
    (alone,) = load_run(run).predict([tmp_path / "0.png"])
    assert alone["photo"].shape == (8, 8, 3)
    np.testing.assert_allclose(alone["size"], photo["size"], rtol=1e-3)


CLIPS = f"""
data:
  inputs: {{sound: {{modality: audio, num_samples: 64, sample_rate: 8000}}}}
  clips: {{num_test: 3}}
  values: [size]
  lanes: 2
  window: 8
model:
  inputs: {{sound: {{patch: 8}}}}
  outputs: {{size: {{kind: value}}}}{SMALL}"""


def test_the_answers_to_several_clips_are_averaged_as_an_evaluation_does(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / recording(tmp_path / f"{number}.wav", number, 200) for number in range(5)]
    rows = [
        {"audio": path.name, "value.size": float(number), "split": "test" if number < 3 else "train"}
        for number, path in enumerate(paths)
    ]
    run = make_run(CLIPS, rows)
    evaluation.main(run, as_json=True)
    expected = json.loads(capsys.readouterr().out)["metrics"]["size"]["mean_absolute_error"]["all"]
    found = [row["size"] for row in predicted(run, *paths[:3], out=tmp_path / "out.jsonl", batch=2)]
    network = load_run(run).trained
    samples = samples_of(network, tuple(map(str, paths[:3])), "", lambda _: None)
    answering = Answering.of(network, samples, top=1)
    with samples.loader(3, range(1), None) as loader:
        clips = samples.clips(loader, 0)
    assert len(clips) == 3
    of_each = [answering.latents([clip], whole=True) for clip in clips]
    torch.testing.assert_close(answering.latents(clips, whole=True), torch.stack(of_each).mean(dim=0))
    torch.testing.assert_close(answering.latents(clips[:2], whole=False), (of_each[0] + of_each[1]).mean(dim=1) / 2)
    assert np.abs(np.array(found) - np.arange(3)).mean() == pytest.approx(expected, rel=1e-5)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("num_test: 3", "num_test: 1"))
    assert [row["size"] for row in load_run(run).predict(paths[:3])] != pytest.approx(found, rel=1e-3)


WORDS = f"""
data:
  inputs: {{text: {{modality: text, num_bytes: 24, masking: {{probability: 0.3}}}}}}
  lanes: 2
  window: 8
model:
  inputs: {{text: {{embedding_width: 16}}}}
  outputs: {{text: {{kind: text}}}}
  cross_attend: {{num_heads: 2, qk_width: 16, value_width: 16}}
  decoder: {{cross_attend: {{num_heads: 2, qk_width: 16, value_width: 16}}}}{SMALL}"""


def test_a_text_is_filled_in_where_it_says_so_or_where_an_evaluation_hides(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(WORDS, [{"text": f"a text of words {number}"} for number in range(4)])
    (tmp_path / "marked.txt").write_text("a [MASK][MASK]xt of words")
    (tmp_path / "plain.txt").write_text("a text of words 0")
    marked, plain = predicted(run, tmp_path / "marked.txt", tmp_path / "plain.txt", out=tmp_path / "out.jsonl")
    assert marked["text_shown"] == "a __xt of words"
    assert marked["text"] != marked["text_shown"]
    assert marked["text"].startswith("a ")
    (of_shards,) = [
        row
        for row in predicted(run, f"{run}_shards", out=tmp_path / "shards.jsonl", split="train")
        if row["key"].endswith("1") and row["text_shown"] == plain["text_shown"]
    ]
    assert of_shards["text"] == plain["text"]
    assert "_" in plain["text_shown"]


PAIRS = f"""
data:
  inputs: {{frames: {{modality: flow, height: 8, width: 8, test_height: 12, test_width: 16}}}}
  lanes: 2
  window: 8
model:
  inputs: {{frames: {{project_to: 12, positions: {{num_bands: 2}}}}}}
  outputs: {{frames: {{kind: flow, rescale: 1.0}}}}
  decoder: {{output_width: 16}}{SMALL}"""


def test_motion_is_a_flo_file_and_a_picture_of_frames_without_one(make_run: MakeRun, tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        first, second = (picture(tmp_path / f"{number}{name}.png", number, (12, 16, 3)) for name in "ab")
        (tmp_path / f"{number}.flo").write_bytes(flo(np.full((12, 16, 2), number, np.float32)))
        rows.append({"first": first, "second": second, "flow": f"{number}.flo", "split": "test" if number else "train"})
    rows += [rows[0] | {"flow": "0.flo"}]
    run = make_run(PAIRS, rows)
    (tmp_path / "new.csv").write_text("first,second\n1a.png,1b.png\n1a.png,none.png\n1a.png,\n")
    (found,) = predicted(run, tmp_path / "new.csv", out=tmp_path / "out.jsonl")
    answered = motion((tmp_path / found["frames"]).read_bytes())
    assert answered.shape == (12, 16, 2)
    with Image.open(tmp_path / found["frames_picture"]) as drawn:
        assert drawn.size == (16, 12)
    of_shards = {row["key"]: row for row in predicted(run, f"{run}_shards", out=tmp_path / "shards.jsonl")}
    # Of the same constant motion, the second and third of the rows, in the middle of their frames.
    truths = [motion((tmp_path / row["frames_true"]).read_bytes()) for row in of_shards.values()]
    assert sorted(float(truth.mean()) for truth in truths) == [1.0, 2.0]
    assert "frames_true" not in found
    expected = motion((tmp_path / of_shards["00000002"]["frames"]).read_bytes())
    np.testing.assert_allclose(answered, expected, rtol=1e-3, atol=1e-5)
    skipped = [json.loads(line)["reason"] for line in (tmp_path / "out.jsonl.skipped.jsonl").read_text().splitlines()]
    assert any("without its second frame" in reason for reason in skipped)


PLACES = f"""
data:
  inputs:
    photo: {{modality: image, height: 8, width: 8}}
    asked: {{modality: array, members: asked.npy, shape: [4, 1], coordinates: places.npy, num_axes: 2, nan: keep}}
  multi_label: true
  lanes: 2
  window: 8
model:
  mask_tokens: true
  inputs: {{photo: {{}}}}
  outputs:
    label: {{kind: labels, num_classes: 3}}
    asked: {{kind: points, coordinates: asked.coordinates, num_bands: 2, max_frequency: 2}}
    photo: {{kind: masked, fraction: 0.5, positions: {{num_bands: 2}}}}{SMALL}"""


def test_labels_places_without_values_and_hidden_patches(make_run: MakeRun, tmp_path: Path) -> None:
    rows = []
    for number in range(4):
        np.save(tmp_path / f"{number}.asked.npy", np.ones((4, 1), np.float32))
        np.save(tmp_path / f"{number}.places.npy", np.full((4, 2), 0.1 * number, np.float32))
        rows.append(
            {
                "image": picture(tmp_path / f"{number}.png", number),
                "member.asked": f"{number}.asked.npy",
                "member.places": f"{number}.places.npy",
                "label": ["a", "b"] if number % 2 else ["c"],
            }
        )
    run = make_run(PLACES, rows)
    np.save(tmp_path / "three.npy", np.full((3, 2), 0.1, np.float32))
    (tmp_path / "new.csv").write_text("photo,asked.coordinates\n1.png,three.npy\n,three.npy\n")
    found, without = predicted(run, tmp_path / "new.csv", out=tmp_path / "out.jsonl", top=2)
    assert without["photo"] is None, "of what is not there no part was hidden"
    assert set(found["label"]) <= {"a", "b", "c"}
    assert found["label_likely_probability"] >= found["label_likely_2_probability"]
    assert np.load(tmp_path / found["asked"]).shape == (3, 1)
    of_shards = predicted(run, f"{run}_shards", out=tmp_path / "shards.jsonl", split="train")
    assert [np.load(tmp_path / row["asked_true"]).tolist() for row in of_shards] == [[[1.0]] * 4] * 4
    with Image.open(tmp_path / found["photo"]) as drawn, Image.open(tmp_path / "1.png") as given:
        equal = (np.asarray(drawn) == np.asarray(given)).all(axis=-1)
    # What was shown is as it was, but for the rounding; half of it was hidden.
    assert 0.4 < equal.mean() < 0.7


def test_the_answer_of_a_plug_in_is_written_as_its_task_says(make_run: MakeRun, tmp_path: Path) -> None:
    plugin = FOCAL.read_text().replace(
        "    def metrics(self)",
        '    def rows(self, answer, batch, telling):\n        """Return the least likely class."""\n'
        "        return [{self.name: int(number)} for number in answer.argmin(dim=1)]\n\n    def metrics(self)",
        1,
    )
    config = (
        """
plugins: [PLUGIN]
data: {inputs: {image: {modality: image, height: 8, width: 8}}, lanes: 2, window: 8}
model:
  inputs: {image: {}}
  outputs: {label: {kind: focal, num_classes: 2}}"""
        + SMALL
    )
    rows = [{"image": picture(tmp_path / f"{n}.png", n), "label": f"class {n % 2}"} for n in range(4)]
    shutil.copy(FOCAL, tmp_path / "focal.py")
    inherited = make_run(config.replace("PLUGIN", "focal.py"), rows, "inherited")
    with pytest.raises(ValueError, match="trust_code=True"):
        load_run(inherited)
    found = load_run(inherited, trust_code=True).predict([tmp_path / "0.png"])
    assert found[0]["label"] in {"class 0", "class 1"}
    (tmp_path / "focal.py").write_text(plugin)
    own = make_run(config.replace("PLUGIN", "focal.py"), rows, "own")
    assert load_run(own, trust_code=True).predict([tmp_path / "0.png"])[0]["label"] in {0, 1}


def test_what_a_network_answers_that_is_no_number_is_null(make_run: MakeRun, tmp_path: Path) -> None:
    rows = [{"image": picture(tmp_path / f"{n}.png", n), "value.size": float(n)} for n in range(4)]
    config = (
        """
data: {inputs: {image: {modality: image, height: 8, width: 8}}, values: [size], lanes: 2, window: 8}
model:
  inputs: {image: {}}
  outputs: {size: {kind: value}}"""
        + SMALL
    )
    run = make_run(config, rows)
    loaded = load_run(run)
    with torch.no_grad():
        next(loaded.network.parameters()).fill_(torch.nan)
    assert np.isnan(loaded.predict([tmp_path / "0.png"])[0]["size"])
