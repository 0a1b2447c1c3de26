"""`perceiver init`: a configuration that suits shards of every modality, is read strictly and trains as it is."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from configs.run import RunConfig, load
from data_shards.building import adoption
from data_shards.loading.shard_loader import ShardLoader
from data_shards.sources import table
from data_shards.sources.digits import Drawn
from launch.cli.main import app
from model.perceiver import Perceiver
from trainer.tasks.objective import objective

Rows = list[dict[str, Any]]
RNG = np.random.default_rng(0)
COUNT = 12


def perceiver(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def saved(folder: Path, name: str, array: np.ndarray) -> str:
    np.save(folder / name, array.astype(np.float32))
    return name


def picture(folder: Path, name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> str:
    Image.fromarray(RNG.integers(0, 256, shape).astype(dtype)).save(folder / name)
    return name


def drawn(folder: Path, name: str, suffix: str, number: int) -> str:
    (folder / name).write_bytes(Drawn(number, number % 10, suffix).read())
    return name


def images(folder: Path, n: int) -> dict[str, Any]:
    return {"image": picture(folder, f"{n}.png", (40 + n, 60, 3)), "label": ("cat", "dog", "a: [b]")[n % 3]}


def audio(folder: Path, n: int) -> dict[str, Any]:
    return {"audio": drawn(folder, f"{n}.wav", "wav", n), "label": [n % 2, 2] if n % 3 else [n % 2]}


def video(folder: Path, n: int) -> dict[str, Any]:
    return {"video": drawn(folder, f"{n}.mp4", "mp4", n), "label": n % 2, "label.colour": ("red", "blue")[n % 2]}


def points(folder: Path, n: int) -> dict[str, Any]:
    return {"points": saved(folder, f"{n}.npy", RNG.normal(size=(70, 6))), "label": n % 2}


def text(folder: Path, n: int) -> dict[str, Any]:
    return {"text": f"a text of some words, the number {n}"}


def arrays(folder: Path, n: int) -> dict[str, Any]:
    return {"member.eeg": saved(folder, f"{n}.npy", RNG.normal(size=(64 + n, 4))), "value.age": 40 + n}


def fields(folder: Path, n: int) -> dict[str, Any]:
    """An array that is no cloud, under the suffix of clouds, and nothing to predict beside it."""
    return {"member.field": saved(folder, f"{n}.npy", RNG.normal(size=(8, 12, 2)))}


def numbers(folder: Path, n: int) -> dict[str, Any]:
    return {"image": picture(folder, f"{n}.png", (16, 16)), "value.price": 2.5 * n, "value.place": [n, -n]}


def pairs(folder: Path, n: int) -> dict[str, Any]:
    moved = np.ones((24, 40, 2), np.float32)
    (folder / f"{n}.flo").write_bytes(b"PIEH" + np.array([40, 24], "<i4").tobytes() + moved.tobytes())
    frames = {role: picture(folder, f"{n}{role}.png", (24, 40, 3)) for role in ("first", "second")}
    return {**frames, "flow": f"{n}.flo"}


def cameras(folder: Path, n: int) -> dict[str, Any]:
    return {f"member.{side}": picture(folder, f"{n}{side}.png", (8, 12, 3)) for side in ("left", "right")}


Make = Callable[[Path, int], dict[str, Any]]
DATA: dict[str, tuple[Make, dict[str, Any]]] = {
    "images": (images, {"image": (40, 56, 3), "label": 3}),
    "audio": (audio, {"audio": (2000,), "label": 3}),
    "video": (video, {"video": (8, 32, 32, 3), "label": 2, "colour": 2}),
    "points": (points, {"points": (70, 6), "label": 2}),
    "text": (text, {"text": (48,)}),
    "arrays": (arrays, {"eeg": (64, 4), "age": 1}),
    "fields": (fields, {"field": (8, 12, 2)}),
    "numbers": (numbers, {"image": (16, 16, 1), "price": 1, "place": 2}),
    "pairs": (pairs, {"flow": (2, 24, 40, 3)}),
    "cameras": (cameras, {"left": (8, 12, 3), "right": (8, 12, 3)}),
}


def shards(tmp_path: Path, make: Make, count: int = COUNT) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [{**make(raw, n), "split": "test" if n % 4 == 3 else "train"} for n in range(count)]
    (raw / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(raw / "table.jsonl", tmp_path / "some shards")
    return tmp_path / "some shards"


def written(tmp_path: Path, make: Make) -> tuple[Path, RunConfig]:
    folder = shards(tmp_path, make)
    perceiver("init", folder, "--out", tmp_path / "run.yaml")
    return folder, load(tmp_path / "run.yaml")


@pytest.mark.parametrize("name", DATA)
def test_the_file_is_strict_and_has_the_sizes_of_the_samples(tmp_path: Path, name: str) -> None:
    make, sizes = DATA[name]
    folder, config = written(tmp_path, make)
    assert list(config.problems()) == []
    assert config.data.shards == str(folder)
    assert config.data.eval_split == "test"
    shapes = {name: section.shape for name, section in config.data.inputs.items()}
    assert shapes == {key: size for key, size in sizes.items() if isinstance(size, tuple)}
    counts = {
        name: getattr(output, "num_classes", getattr(output, "num_values", None))
        for name, output in config.model.outputs.items()
    }
    assert {key: count for key, count in counts.items() if count} == {
        key: size for key, size in sizes.items() if isinstance(size, int)
    }
    assert all(each.num_tokens <= 1024 for each in config.model.ordered_inputs.values())


def test_a_number_starts_at_its_mean_in_units_of_its_deviation(tmp_path: Path) -> None:
    _, config = written(tmp_path, arrays)
    known = [40 + n for n in range(COUNT) if n % 4 != 3]
    age = config.model.outputs["age"]
    assert (age.offset, age.scale) == (pytest.approx(np.mean(known), 1e-3), pytest.approx(np.std(known), 1e-3))


@pytest.mark.parametrize("name", DATA)
def test_its_loss_can_be_trained_on(tmp_path: Path, name: str) -> None:
    _, config = written(tmp_path, DATA[name][0])
    network, goal = Perceiver(config.model, seed=config.seed), objective(config.model.answers())
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    with ShardLoader(config.data, global_batch=config.train.global_batch, seed=0) as loader:
        for batch, _ in zip(loader, range(2), strict=False):
            loss = goal.loss(goal.sums(network, batch), goal.counts(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert loss.isfinite()
            assert loss > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cameras", "pairs"])
def test_the_file_trains_as_it_is(tmp_path: Path, name: str) -> None:
    written(tmp_path, DATA[name][0])
    run = tmp_path / "run"
    perceiver("train", tmp_path / "run.yaml", "train.steps=2", "optimizer.warmup_steps=1", "--run", run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in key for line in lines for key in line)
    perceiver("eval", run)
    assert json.loads((run / "evaluation.json").read_text())["samples"] == 3


def test_the_file_goes_to_the_terminal_and_says_what_it_is_for(tmp_path: Path) -> None:
    folder = shards(tmp_path, images)
    text = perceiver("init", folder)
    assert text.startswith(f"# For {folder}, by 9 of 9 training samples. Change what you like.\n")
    assert "#   perceiver train FILE --run runs/first\n" in text
    assert "num_classes: 3} # a: [b], cat, dog\n" in text
    assert "eval_split: test # 3 samples\n" in text


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    folder = shards(tmp_path, text, 2)
    (tmp_path / "run.yaml").write_text("mine")
    with pytest.raises(ValueError, match=r"run.yaml: is there already, and is left as it is; choose another file"):
        perceiver("init", folder, "--out", tmp_path / "run.yaml")
    assert (tmp_path / "run.yaml").read_text() == "mine"
    with pytest.raises(ValueError, match=r"cannot be written \(No such file or directory\); choose another file"):
        perceiver("init", folder, "--out", tmp_path / "gone" / "run.yaml")


def test_shards_of_one_sample_and_of_none_to_evaluate(tmp_path: Path) -> None:
    folder = shards(tmp_path, text, 1)
    (tmp_path / "run.yaml").write_text(perceiver("init", folder))
    config = load(tmp_path / "run.yaml")
    assert (config.train.global_batch, config.data.eval_split) == (1, "")


@pytest.mark.parametrize(("num_samples", "batch", "lanes"), [(16, 4, 1), (64, 16, 4), (100, 32, 8), (300, 64, 8)])
def test_the_batch_follows_from_the_number_of_training_samples_and_the_lanes_divide_it(
    tmp_path: Path, num_samples: int, batch: int, lanes: int
) -> None:
    (tmp_path / "run.yaml").write_text(perceiver("init", shards(tmp_path, text, num_samples)))
    config = load(tmp_path / "run.yaml")
    assert (config.train.global_batch, config.data.lanes) == (batch, lanes)


def test_a_sample_that_is_broken_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    good = (tmp_path / picture(tmp_path, "good.png", (16, 24, 3))).read_bytes()
    members = [(f"{n}.png", good) for n in range(5)] + [("5.png", b"no"), ("6.png", good), ("6.jpg", good)]
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    adoption.index(folder)
    (tmp_path / "run.yaml").write_text(perceiver("init", folder))
    assert load(tmp_path / "run.yaml").data.inputs["image"].shape == (16, 24, 3)


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        perceiver("init", tmp_path)
    folder = shards(tmp_path, lambda raw, n: {"points": saved(raw, f"{n}.npy", RNG.normal(size=(70, 3)))}, 4)
    with pytest.raises(ValueError, match="has no labels and no values, and nothing of points can be hidden"):
        perceiver("init", folder)
