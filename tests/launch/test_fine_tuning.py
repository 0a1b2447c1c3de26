"""The commands of docs/fine_tuning.md, as they are typed, on a few digits and with --tiny."""

import io
import json
import math
import re
import shlex
import subprocess
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from launch.cli.main import app
from trainer.checkpoint.layout import read_weights

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "fine_tuning.md"
# The runs of the page have 300 steps, and those of --tiny 2.
SMALL = {"=100]": "=1]", "evaluate_every_steps=50": "evaluate_every_steps=1"}


def archives(folder: Path) -> None:
    """Write MNIST and the spoken digits as they are handed out: two pictures a digit to train on, and one to test."""
    rng = np.random.default_rng(0)
    with (
        zipfile.ZipFile(folder / "mnist_png.zip", "w") as pictures,
        zipfile.ZipFile(folder / "fsdd.zip", "w") as sounds,
    ):
        for digit in range(10):
            for split, count in (("train", 2), ("test", 1)):
                for number in range(count):
                    file = io.BytesIO()
                    Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(file, "PNG")
                    pictures.writestr(f"{split}/{digit}/{split}{number}.png", file.getvalue())
            for number in (0, 5):
                file = io.BytesIO()
                with wave.open(file, "wb") as opened:
                    opened.setparams((1, 2, 8_000, 0, "NONE", ""))
                    opened.writeframes(bytes(8))
                sounds.writestr(f"recordings/{digit}_jo_{number}.wav", file.getvalue())


def called(line: str) -> str:
    """Run a command of the page in this process, a training with --tiny."""
    words = shlex.split(line)[1:]
    more = {"train": ["--tiny", "train.log_every_steps=1"], "data": ["--jobs", "1"], "eval": ["--json"]}
    done = CliRunner().invoke(app, [*words, *more[words[0]]], catch_exceptions=False)
    assert done.exit_code == 0, (line, done.output)
    return done.stdout


def weights(run: str, step: int) -> dict[str, Tensor]:
    return read_weights(Path("runs") / run / "checkpoints" / f"step_{step:08d}")


def losses(run: str) -> list[float]:
    lines = [json.loads(line) for line in (Path("runs") / run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def events(run: str) -> str:
    return (Path("runs") / run / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_the_commands_of_the_page_pretrain_tune_and_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    archives(tmp_path)
    *others, last = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    # What the others start from is made by the last one.
    evaluated: dict[str, Any] = {}
    for block in (last, *others):
        for old, new in SMALL.items():
            block = block.replace(old, new)
        # Commands of the shell, and between them those of the product.
        for part in re.split(r"^(?=perceiver )|(?<=\n)(?=unzip )", block.replace("\\\n", " "), flags=re.MULTILINE):
            if part.startswith("perceiver "):
                told = called(part)
                if part.startswith("perceiver eval"):
                    evaluated[shlex.split(part)[2]] = json.loads(told)
            else:
                subprocess.run(["bash", "-euc", part], check=True)
    assert len(list((tmp_path / "few" / "train").rglob("*.png"))) == 20
    assert len(list((tmp_path / "rare" / "train").rglob("*.png"))) == 20
    assert evaluated.keys() == {f"runs/{name}" for name in ("from_scratch", "few", "patient", "plain", "weighted")}
    assert {found["samples"] for found in evaluated.values()} == {10}
    assert all(0 <= found["metrics"]["label"]["accuracy"]["all"] <= 1 for found in evaluated.values())

    pretrained, scratch = weights("mnist_masked", 2), weights("from_scratch", 0)
    for run in ("few", "frozen", "patient"):
        start = weights(run, 0)
        taken = {name for name in start if name in pretrained and torch.equal(start[name], pretrained[name])}
        assert {name for name in start if name.startswith("encoder.")} <= taken
        # The answer is another: what the pretrained network does not have is drawn as of a run from random weights.
        assert all(torch.equal(start[name], scratch[name]) for name in start.keys() - pretrained.keys())
    assert "freezes until step 1: " in events("frozen")
    # Answers begin alike for all classes, so that the first loss is ln 10: with weights it is divided by their sum.
    assert losses("weighted")[0] == pytest.approx(math.log(10), rel=1e-5)
    assert losses("plain")[0] == pytest.approx(math.log(10), rel=1e-5)
    assert losses("weighted")[1] != losses("plain")[1]
