"""The way of docs/your_data.md: pictures of one's own, from files to an evaluated run and a fork of it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_start import finished

CONFIG = Path(__file__).parents[2] / "configs" / "pictures.yaml"


@pytest.fixture
def perceiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("PYTHONPATH", str(CONFIG.parents[1]))

    def call(*words: str) -> str:
        done = finished([sys.executable, "-m", "launch", *words], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_a_folder_of_pictures_becomes_an_evaluated_run(tmp_path: Path, perceiver: Callable[..., str]) -> None:
    draws = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for picture in range(50):
            pixels = draws.integers(0, 255, (40, 50, 3))
            pixels[..., number] //= 3
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{picture}.jpg")

    told = perceiver("data", "build", "image-folder", "pictures", "data/pictures", "--test-share", "0.2")
    assert "set aside for the split test: 20 of 100 samples" in told
    assert "100 samples, 0 bad" in perceiver("data", "verify", "data/pictures")
    perceiver("data", "show", "data/pictures", "--out", "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    assert "blocks" in perceiver("plan", str(CONFIG))

    few = ("train.steps=50", "train.evaluate_every_steps=25")
    told = perceiver("train", str(CONFIG), "data.shards=data/pictures", *few, "--run", "runs/pictures")
    assert "split 'test' is evaluated every 25 steps and at the end" in told
    assert "label: accuracy       100.00%" in perceiver("eval", "runs/pictures")

    told = perceiver("fork", "runs/pictures", "runs/more", "train.steps=60")
    [line] = [line for line in told.splitlines() if line.startswith("train it: perceiver ")]
    words = line.removeprefix("train it: perceiver ").partition(", or on Slurm")[0].split()
    assert "finished at step 60" in perceiver(*words)
