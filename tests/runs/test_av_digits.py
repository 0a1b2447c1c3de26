"""A small cut of the audio-visual digits: real images and recordings through the real command, on two processes."""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm_start import finished

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data"
SIZES = {"train": 100, "test": 20}
"""Images of each digit."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """MNIST's first images of each digit, as a zip like the whole one."""
    if not (REAL / "mnist_png.zip").is_file() or not (REAL / "fsdd.zip").is_file():
        pytest.skip("needs mnist_png.zip and fsdd.zip in ../shared/data")
    out = tmp_path / "images.zip"
    taken: dict[tuple[str, str], int] = {}
    with zipfile.ZipFile(REAL / "mnist_png.zip") as whole, zipfile.ZipFile(out, "w") as cut:
        for name in sorted(name for name in whole.namelist() if name.endswith(".png")):
            split, digit = Path(name).parts[-3:-1]
            taken[split, digit] = taken.get((split, digit), 0) + 1
            if taken[split, digit] <= SIZES[split]:
                cut.writestr(name, whole.read(name))
    return out


@pytest.mark.slow
def test_two_processes_learn_from_real_images_and_recordings(
    images: Path, tmp_path: Path, make_run: Callable[..., Any]
) -> None:
    shards = tmp_path / "av_digits"
    sources = ("--images", images, "--recordings", REAL / "fsdd.zip")
    built = perceiver("data", "build", "av-digits", *sources, shards, "--json")
    assert {name: split["samples"] for name, split in built["splits"].items()} == {"train": 1_000, "test": 200}
    assert perceiver("data", "verify", shards, "--json")["ok"]

    run = make_run("run", 2, config=ROOT / "configs" / "av_digits.yaml", shards=shards)
    ended = run.finish("train.steps=80", "optimizer.warmup_steps=10", "train.log_every_steps=20")
    assert [status for status, _, _ in ended] == [0, 0], ended

    # One process reads the checkpoint that two wrote, and counts the same samples.
    result = perceiver("eval", run.folder, "--json")
    assert result["samples"] == 200
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = next(line for line in lines if line["kind"] == "evaluation" and line["step"] == 80)
    accuracy = result["metrics"]["label"]["accuracy"]
    alone = {name: evaluated[f"label/accuracy/{name}"] for name in accuracy if name != "all"}
    assert {"all": evaluated["label/accuracy"], **alone} == pytest.approx(accuracy)
    # Ten classes; what this cut reaches in so few steps is far above one in ten.
    assert accuracy["all"] > 0.4
    assert (run.folder / "pictures" / "predictions.png").stat().st_size > 0


def perceiver(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "launch", *map(str, arguments)]
    done = finished(command, cwd=ROOT)
    done.check_returncode()
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
