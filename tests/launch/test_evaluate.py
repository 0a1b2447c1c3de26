"""`perceiver eval` scores the checkpoint and the split that are named, and draws what it saw."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import load
from data_shards.loading.batch import Batch
from data_shards.loading.shard_folders import Places
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.transform_config import ClipsConfig
from data_shards.sources import table
from launch.answers.loaded_run import load_run
from launch.lifecycle.run_folder import RunFolder
from launch.pictures import drawing
from launch.run.creation import open_run
from launch.run.loaders import EvalSplit, identity
from launch.run.trained import evaluation
from launch.run.trained.network import config_of, trained
from model.outputs.label import LabelOutput, LabelsOutput
from model.perceiver import Perceiver
from trainer.checkpoint.names import MANIFEST
from trainer.distributed.world import World
from trainer.evaluation.evaluation import ALL, Evaluation, Value
from trainer.tasks.metric import Metric

Door = Callable[..., list[dict[str, Any]]]
ACCURACY = Metric("accuracy", "%", highest=1.0)
# A rank that is not the first, without the others: each exchange gives back what it was given.
SECOND = World(1, 1, 0, torch.device("cpu"))
CONFIG = """
data: {inputs: {image: {modality: image, height: 8, width: 8, shift_pixels: 0}}, lanes: 2, window: 8}
model:
  inputs: {image: {height: 8, width: 8}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 8, global_batch: 8}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with checkpoints of other networks at steps 4 and 8, the first the better, and two splits beside train."""
    rows = []
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = "test" if number < 5 else "other" if number < 8 else "train"
        rows.append({"image": f"{number}.png", "label": f"class {number % 3}", "split": split})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "config.yaml").write_text(CONFIG)
    config = load(tmp_path / "config.yaml", [f"data.shards={tmp_path}/shards"])
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    for step, score in ((4, 0.9), (8, 0.1)):
        weights = Perceiver(config.model, seed=step).state_dict()
        save(folder.checkpoints_folder, step, weights, identity=identity(config), score=score)
    return folder


def test_the_newest_checkpoint_is_scored_on_the_run_s_split_and_what_it_saw_is_drawn(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, list[str], list[str]]] = []
    draw = drawing.predictions

    def keep(images: np.ndarray, truths: list[str], guesses: list[str], out: Path, **options: bool) -> None:
        seen.append((images, truths, guesses))
        draw(images, truths, guesses, out, **options)

    monkeypatch.setattr(drawing, "predictions", keep)
    run.metrics_path.write_text('{"kind": "train", "step": 1, "loss": 1.0}\n')
    assert evaluation.main(run.path, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["split"], found["samples"]) == (8, "test", 5)
    # Of other data than the run's the shards would be named, too.
    assert list(found) == ["step", "weights", "split", "samples", "metrics", "judged", "tables", "cut"]
    assert json.loads(run.evaluation_path.read_text()) == found
    [(images, truths, guesses)] = seen
    assert images.shape == (5, 8, 8, 3)
    assert sorted(truths) == ["class 0", "class 0", "class 1", "class 1", "class 2"]
    right = sum(truth == guess for truth, guess in zip(truths, guesses, strict=True))
    assert found["metrics"]["label"]["accuracy"]["all"] == pytest.approx(right / 5)
    names = sorted(path.name for path in run.pictures_folder.glob("*.png"))
    assert names == ["confusion_label.png", "loss.png", "predictions.png"]


@pytest.mark.parametrize(("values", "is_unit"), [("bytes", True), ("unit", True), ("raw", False)])
def test_only_pictures_of_no_known_range_are_drawn_by_their_own(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: str, *, is_unit: bool
) -> None:
    drawn: list[bool] = []
    monkeypatch.setattr(drawing, "predictions", lambda *_, is_unit: drawn.append(is_unit))
    config = load(run.config_path, [f"data.inputs.image.values={values}"])
    other = RunFolder(tmp_path / values)
    open_run(config, other)
    save(
        other.checkpoints_folder, 8, Perceiver(config.model, seed=8).state_dict(), identity=identity(config), score=0.1
    )
    assert evaluation.main(other.path) == 0
    assert drawn == [is_unit]


def test_the_checkpoint_and_the_split_that_are_named_are_scored_and_told(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluation.main(run.path, which="best", split="other") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "step 4, 3 other samples"
    assert told[1].split()[:2] == ["label:", "accuracy"]
    assert told[-2].startswith("pictures: ")
    assert "tensorboard --logdir" in told[-1]
    assert not (run.pictures_folder / "loss.png").exists(), "a run that logged nothing has no curve"


def test_a_network_with_nested_latents_is_scored_and_drawn_at_every_size(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sizes, told in (("all", "this network is trained for all of its 4 latents only"), ("2", "--latents 2: this")):
        with pytest.raises(ValueError, match=told):
            evaluation.main(run.path, latents=sizes)
    config = load(run.config_path, ["model.nested_latents=[1,2,4]"])
    run = RunFolder(tmp_path / "nested")
    open_run(config, run)
    save(run.checkpoints_folder, 8, Perceiver(config.model, seed=8).state_dict(), identity=identity(config), score=0.1)
    with pytest.raises(ValueError, match="--latents 3: expected one of 1, 2, 4, which it is trained for"):
        evaluation.main(run.path, latents="3")
    curves: list[Sequence[float]] = []
    draw = drawing.quality_over_cost

    def keep(sizes: Sequence[int], costs: Any, values: Sequence[float], *labels: Any) -> None:  # noqa: ANN401
        curves.append(values)
        draw(sizes, costs, values, *labels)

    monkeypatch.setattr(drawing, "quality_over_cost", keep)
    assert evaluation.main(run.path, latents="all") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "step 8, 5 test samples"
    assert told[1].split() == ["latents", "GFLOP", "ms", "per", "sample", "label:", "accuracy"]
    assert [row.split()[0] for row in told[2:5]] == ["1", "2", "4"]
    found = json.loads(run.latents_path.read_text())
    assert [size["latents"] for size in found["sizes"]] == [1, 2, 4]
    assert curves == [[size["metrics"]["label"]["accuracy"]["all"] for size in found["sizes"]]]
    assert 0 < found["sizes"][0]["gflop"] < found["sizes"][2]["gflop"]
    assert all(size["seconds"] > 0 for size in found["sizes"])
    assert (run.pictures_folder / "latents.png").stat().st_size > 1_000
    for size in found["sizes"]:
        assert evaluation.main(run.path, latents=str(size["latents"]), as_json=True) == 0
        alone = json.loads(capsys.readouterr().out)
        assert (alone["latents"], alone["metrics"]) == (size["latents"], size["metrics"])
    assert load_run(run.path, latents=2).network.config.num_latents == 2
    run.latents_path.unlink()
    chosen = trained(run.path, load(run.config_path), "newest", World.alone())
    monkeypatch.setattr(evaluation, "trained", lambda *_: chosen)
    monkeypatch.setattr(evaluation, "joined", lambda _: SECOND)
    assert evaluation.main(run.path, latents="all") == 0
    assert (capsys.readouterr().out, run.latents_path.exists()) == ("", False)


def test_only_pictures_with_a_label_that_are_no_padding_are_shown() -> None:
    batch = Batch(
        arrays={"image": torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)},
        lengths={"image": torch.tensor([1, 0, 1, 1])},
        labels=torch.tensor([0, 1, -1, 1]),
        weights=torch.ones(4),
        keys=("shown", "without a picture", "without a label", ""),
        targets={},
    )

    class First(nn.Module):
        def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
            assert arrays.keys() == lengths.keys()
            return {"label": torch.tensor([[0.0, 1.0]] * 4)}

    [(image, truth, guess)] = evaluation._pictured(
        First(), batch, World(0, 1, 0, torch.device("cpu")), "label", "image"
    )
    assert (image.item(), truth, guess) == (0, 0, 1)


def test_a_damaged_checkpoint_is_passed_over_and_told_by_the_first_rank_alone(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.checkpoints_folder / "step_00000008" / MANIFEST).write_text("{")
    assert evaluation.main(run.path, as_json=True) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["step"] == 4
    assert "skipped a damaged checkpoint" in told.err
    run.evaluation_path.unlink()
    chosen = trained(run.path, load(run.config_path), "newest", World.alone())
    assert len(chosen.notes) == 1
    monkeypatch.setattr(evaluation, "trained", lambda *_: chosen)
    monkeypatch.setattr(evaluation, "joined", lambda _: SECOND)
    assert evaluation.main(run.path, as_json=True) == 0
    told = capsys.readouterr()
    assert (told.out, "skipped" in told.err, run.evaluation_path.exists()) == ("", False, False)


@pytest.mark.parametrize(
    ("value", "title"),
    [
        (Value("digit", ACCURACY, ALL, 0.5), "digit: accuracy"),
        (Value("digit", ACCURACY, "photo", 0.5), "digit: accuracy, photo alone"),
        (Value("tags", Metric("mean_average_precision", "%"), ALL, 0.5), "tags: mean average precision"),
    ],
)
def test_a_metric_is_told_by_what_was_answered_and_what_was_shown(value: Value, title: str) -> None:
    assert evaluation._title(value) == title


def test_all_ranks_leave_together_and_what_a_loader_left_out_is_told(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[World] = []
    monkeypatch.setattr(World, "close", lambda world: left.append(world))
    opened = evaluation.open_eval_split

    def without_some(*words: object) -> EvalSplit:
        split = opened(*words)
        split.loader.left_out = ("2 samples of this test have no sound",)
        return split

    monkeypatch.setattr(evaluation, "open_eval_split", without_some)
    assert evaluation.main(run.path, as_json=True) == 0
    assert len(left) == 1
    assert "2 samples of this test have no sound" in capsys.readouterr().err


def test_scores_are_told_a_line_each_in_their_columns(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Metric("accuracy_of_a_rather_long_name", "%")
    first = (Value("digit", ACCURACY, ALL, 0.5), Value("digit", ACCURACY, "image", 0.25))
    others = (Value("photo", Metric("psnr", "dB"), ALL, 20.0), Value("digit", long, ALL, 1.0))
    found = Evaluation(7, (*first, *others, Value("age", Metric("error", "years"), ALL, math.nan)))
    chosen = SimpleNamespace(step=3, weights="trained")
    evaluation._tell(run, chosen, "te\x1bst", found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 3, 7 te")
    assert "\x1b" not in lines[0]
    titles = ["digit: accuracy", "digit: accuracy, image alone", "photo: psnr"]
    titles += ["digit: accuracy of a rather long name", "age: error"]
    width = max(map(len, titles))
    assert [line[2 : 2 + width].rstrip() for line in lines[1:6]] == titles
    assert [line[2 + width :] for line in lines[1:6]] == [
        *("   50.00%", "   25.00%", " 20.00 dB", "  100.00%", " not measured")
    ]
    short = Evaluation(1, first[:1], num_nan={"digit": 2})
    chosen = SimpleNamespace(step=3, weights="ema")
    monkeypatch.chdir(run.path.parent)
    told = [
        "step 3, moving average of the weights, 1 test sample",
        f"  {'digit: accuracy':20}   50.00%",
        "  digit: the network answers NaN for 2 samples",
        "  3 were cut",
        "pictures: run/pictures",
    ]
    evaluation._tell(run, chosen, "test", short, ["3 were cut"])
    assert capsys.readouterr().out.splitlines() == [*told, "curves: tensorboard --logdir run/tensorboard"]
    shutil.rmtree(run.tensorboard_folder)
    evaluation._tell(run, chosen, "test", short, ["3 were cut"])
    assert capsys.readouterr().out.splitlines() == told


def test_what_is_drawn_again_is_shown_with_what_it_should_be(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[tuple[int, ...], tuple[int, ...], str]] = []
    monkeypatch.setattr(
        drawing, "reconstructions", lambda truth, found, out, **_: drawn.append((truth.shape, found.shape, out.name))
    )
    monkeypatch.setattr(drawing, "predictions", lambda *_, **__: drawn.append(((), (), "predictions")))
    again = CONFIG.replace("{label: {kind: label, num_classes: 3}}", "{again: {kind: grid, target: image}}")
    (tmp_path / "again.yaml").write_text(again)
    config = load(tmp_path / "again.yaml", [f"data.shards={tmp_path}/shards"])
    folder = RunFolder(tmp_path / "again")
    open_run(config, folder)
    save(folder.checkpoints_folder, 4, Perceiver(config.model, seed=0).state_dict(), identity=identity(config))
    assert evaluation.main(folder.path, as_json=True) == 0
    # Five samples; three slots only fill the batch.
    assert drawn == [((5, 8, 8, 3), (5, 8, 8, 3), "reconstructed_again.png")]


def test_only_samples_that_have_the_input_are_drawn() -> None:
    lengths = {"image": torch.tensor([0, 8, 1, 8, 0]), "sound": torch.tensor([4, 4, 4, 4, 0])}
    # The last two slots only fill the batch.
    batch = Batch({}, lengths, torch.zeros(5), torch.zeros(5), ("a", "b", "c", "", ""))
    assert evaluation._with_input(batch, "image") == [1, 2]
    assert evaluation._with_input(batch, "sound") == [0, 1, 2]


@pytest.mark.parametrize("change", ["multi_label", "no pictures", "nothing to show"])
def test_predictions_are_drawn_of_pictures_with_one_label(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(drawing, "predictions", lambda *words, **_: drawn.append(words))
    monkeypatch.setattr(evaluation, "_pictured", lambda *_: iter(rows))
    config = load(run.config_path)
    rows = [(np.zeros((8, 8, 3)), 0, 1)] * 40
    batches = lambda _: Batch({}, {}, torch.zeros(0), torch.zeros(0), ())  # noqa: E731
    found = Evaluation(1, (Value("label", ACCURACY, ALL, 0.5),))
    evaluation._draw(config, run, nn.Identity(), batches, World.alone(), found)
    [(images, truths, guesses, out)] = drawn
    assert (images.shape, set(truths), set(guesses)) == ((32, 8, 8, 3), {"class 0"}, {"class 1"})
    assert out == run.pictures_folder / "predictions.png"
    drawn.clear()
    label = config.model.outputs["label"]
    assert isinstance(label, LabelOutput)
    if change == "multi_label":
        outputs = {"label": LabelsOutput(num_classes=label.num_classes)}
        config = replace(config, model=replace(config.model, outputs=outputs))
    elif change == "no pictures":
        config = replace(config, data=replace(config.data, inputs={}))
    else:
        rows.clear()
    evaluation._draw(config, run, nn.Identity(), batches, World.alone(), found)
    assert drawn == []


def test_arrays_are_drawn_a_few_and_of_several_pictures_of_a_sample_the_first(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, int, Path]] = []
    for kind in ("predictions", "arrays"):
        monkeypatch.setattr(
            drawing, kind, lambda arrays, *words, kind=kind, **_: drawn.append((kind, len(arrays), words[-1]))
        )
    rows = {"front": 40, "back": 40, "eeg": 40, "mute": 0}
    monkeypatch.setattr(evaluation, "_pictured", lambda *words: iter([(np.zeros((2, 2, 3)), 0, 1)] * rows[words[-1]]))
    config = load(run.config_path)
    image, array = config.data.inputs["image"], ArrayConfig(shape=(2, 2))
    inputs = {"front": image, "back": image, "eeg": array, "mute": array}
    config = replace(config, data=replace(config.data, inputs=inputs))
    batch = Batch({}, {}, torch.zeros(0), torch.zeros(0), ())
    evaluation._draw_predictions(config, run, nn.Identity(), batch, World.alone())
    # In the order of their names.
    assert drawn == [
        ("predictions", 32, run.pictures_folder / "predictions.png"),
        ("arrays", 8, run.pictures_folder / "inputs_eeg.png"),
    ]


def test_what_is_drawn_again_is_drawn_in_its_range_with_what_was_seen_of_it(
    run: RunFolder, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        drawing,
        "reconstructions",
        lambda truths, found, out, *, seen, num_entries, is_unit: drawn.append(
            (truths.tolist(), found.tolist(), out, None if seen is None else seen.tolist(), num_entries, is_unit)
        ),
    )
    tensors = {name: torch.arange(3.0) + number for number, name in enumerate(("truth", "found", "seen"))}
    tasks = {
        name: SimpleNamespace(
            output=SimpleNamespace(target=target), seen=lambda _, seen=seen: seen, shows_unit_range=is_unit
        )
        for name, target, seen, is_unit in (
            ("nothing", "absent", None, True),
            ("hidden", "eeg", tensors["seen"], False),
            ("whole", "eeg", None, True),
        )
    }
    door("launch.run.trained.evaluation.objective", SimpleNamespace(tasks=tasks))
    door("launch.run.trained.evaluation.reconstructions", dict.fromkeys(tasks, (tensors["truth"], tensors["found"])))
    door("launch.run.trained.evaluation._draw_predictions", None)
    config = load(run.config_path)
    config = replace(config, data=replace(config.data, inputs={"eeg": ArrayConfig(shape=(6, 7))}))
    lengths = {"eeg": torch.tensor([6, 0, 6]), "absent": torch.zeros(3)}
    batch = Batch({}, lengths, torch.zeros(3), torch.zeros(3), ("a", "b", "c"))
    evaluation._draw(config, run, nn.Identity(), lambda _: batch, World.alone(), Evaluation(1, ()))
    out = [run.pictures_folder / f"reconstructed_{name}.png" for name in tasks]
    assert drawn == [
        ([0.0, 2.0], [1.0, 3.0], out[1], [2.0, 4.0], 6, False),
        ([0.0, 2.0], [1.0, 3.0], out[2], None, 6, True),
    ]


def test_a_confusion_has_the_class_names_of_the_sample_s_own_label_and_numbers_of_another(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        drawing, "confusion", lambda counts, names, out: drawn.append((counts.tolist(), names, out.name))
    )
    config = load(run.config_path)
    outputs = {**config.model.outputs, "age": LabelOutput(num_classes=2, target="age")}
    config = replace(config, model=replace(config.model, outputs=outputs), data=replace(config.data, inputs={}))
    monkeypatch.setattr(evaluation, "label_names", lambda _: ("class 0", "class 1", "class 2"))
    tables: Any = {
        "age": {"confusion": [[1, 0], [0, 1]]},
        "label": {"confusion": [[2]]},
        "none": {"accuracy": [1.0]},
    }
    batch = Batch({}, {}, torch.zeros(0), torch.zeros(0), ())
    evaluation._draw(config, run, nn.Identity(), lambda _: batch, World.alone(), Evaluation(1, (), tables=tables))
    assert drawn == [
        ([[1, 0], [0, 1]], (), "confusion_age.png"),
        ([[2]], ("class 0", "class 1", "class 2"), "confusion_label.png"),
    ]


def test_all_that_can_be_refused_is_asked_for_before_the_work(run: RunFolder, door: Door) -> None:
    def enough(**_: object) -> None:
        raise ValueError("enough")

    asked = door("launch.run.trained.evaluation.check", enough)
    options = {"which": "best", "weights": "ema", "split": "other", "latents": "2"}
    with pytest.raises(ValueError, match="enough"):
        evaluation.main(run.path, ["data.num_threads=2"], **options)
    [call] = asked
    assert call.pop("places").found == {}
    assert call == {"path": run.path, "overrides": ["data.num_threads=2"], **options}


@pytest.mark.parametrize(
    ("shards", "is_asked", "looks"),
    [("there", False, True), ("there", True, True), ("https://host/there", False, False), ("s3://there", True, True)],
)
def test_shards_at_a_url_are_looked_at_where_they_are_read_alone(
    run: RunFolder, door: Door, shards: str, is_asked: bool, looks: bool
) -> None:
    looked = door("launch.run.trained.evaluation._look", None)
    compared = door("launch.run.trained.other_data.refuse_other", None)
    door("data_shards.loading.streams.eval_split", "the split")
    others = [f"data.shards={shards}"]
    config = config_of(run.path, others)
    places = Places(config.data) if is_asked else None
    for split, expected in (("", "mine"), ("other", "other")):
        looked.clear()
        evaluation.check(run.path, [*others, "data.eval_split=mine"], split=split, places=places)
        assert [call["data"].eval_split for call in looked] == [expected] * looks
        assert all(call["places"] is places for call in looked if is_asked)
    assert [call["split"] for call in compared] == ["the split"] * 2 * looks
    compared.clear()
    # The run's own data were compared when it was made.
    evaluation.check(run.path)
    assert compared == []


def test_a_split_of_which_no_sample_has_what_must_be_there_is_refused(run: RunFolder) -> None:
    config = load(run.config_path, ["data.require=[image]"])
    evaluation._look(config.data, Places(config.data))
    mute = replace(config.data, inputs={"sound": AudioConfig(sample_rate=8, num_samples=8)}, require=("sound",))
    with pytest.raises(ValueError, match="sound"):
        evaluation._look(mute, Places(mute))


def test_a_folder_that_takes_no_pictures_ends_an_evaluation_before_it_judges(run: RunFolder, door: Door) -> None:
    judged = door("launch.run.trained.evaluation._judged", None)
    shutil.rmtree(run.pictures_folder, ignore_errors=True)
    run.pictures_folder.write_text("")
    with pytest.raises((ValueError, OSError), match="pictures"):
        evaluation.main(run.path)
    assert judged == []


def test_the_clips_of_the_data_are_averaged(run: RunFolder, door: Door) -> None:
    asked = door("launch.run.trained.evaluation.evaluate", None)
    config = load(run.config_path)
    config = replace(config, data=replace(config.data, clips=ClipsConfig(num_test=3)))
    evaluation._judged(config, EvalSplit("test", lambda _: None, 2), World.alone(), nn.Identity())
    assert [(call["inputs"], call["num_clips"]) for call in asked] == [(("image",), 3)]


def test_what_a_network_of_every_size_did_not_read_is_told_once(
    run: RunFolder, door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = [SimpleNamespace(sentences=lambda _, n=n: [f"{n} were cut"]) for n in (3, 4)]
    sizes = [SimpleNamespace(evaluation=SimpleNamespace(cuts=each)) for each in cuts]
    door("launch.run.trained.latent_sizes.chosen", (1, 4))
    timed = door("launch.run.trained.latent_sizes.measured", sizes)
    told = door("launch.run.trained.latent_sizes.report", None)
    closed: list[World] = []
    monkeypatch.setattr(World, "close", lambda world: closed.append(world))
    assert evaluation.main(run.path, latents="all", as_json=True) == 0
    assert len(closed) == 1
    [call] = timed
    assert (len([key for key in call["batch"].keys if key]), call["sizes"]) == (5, (1, 4))
    assert [(call["step"], call["split"], call["sizes"], call["as_json"]) for call in told] == [
        (8, "test", sizes, True)
    ]
    err = capsys.readouterr().err
    assert "3 were cut" in err
    assert "4 were cut" not in err


@pytest.mark.parametrize(
    ("shards", "name"),
    [
        ("/data/other/", "other"),
        ("https://host/a b?c=1", "a_b_c_1"),
        ("/data/v1.2-x_y", "v1.2-x_y"),
        (f"/data/{'x' * 90}", "x" * 80),
    ],
)
def test_results_on_other_data_have_a_folder_that_their_name_and_their_overrides_decide(
    run: RunFolder, shards: str, name: str
) -> None:
    config = load(run.config_path)
    other = replace(config, data=replace(config.data, shards=shards))
    assert evaluation._results(run.path, other, ()) == run
    first, turned, more = (
        evaluation._results(run.path, other, words).path for words in (["a=1", "b=2"], ["b=2", "a=1"], ["a=1", "b=3"])
    )
    assert first == turned
    assert first != more
    assert (first.parent, first.name[:-9]) == (run.path / "evaluations", name)
    assert first.name[-9] == "-"
