"""From the raw files of a layout to the evaluated run of the papers' experiment on it, shrunk by --tiny."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from launch.cli.main import app

Build = Callable[..., Any]
Put = Callable[..., Path]
Encode = Callable[..., bytes]
RECIPES = Path(__file__).parents[3] / "configs" / "recipes"
TRAIN, HELD = 12, 3


def imagenet(put: Put, picture: Encode, flo: Encode) -> None:
    for number in range(TRAIN):
        put(f"train/n0000000{number % 3}/{number}.JPEG", picture(20 * number, "JPEG", (40, 30)))
    for number in range(HELD):
        put(f"val/ILSVRC2012_val_{number + 1:08d}.JPEG", picture(60 * number, "JPEG", (40, 30)))
    put("val.txt", b"".join(b"ILSVRC2012_val_%08d.JPEG %d\n" % (n + 1, n) for n in range(HELD)))


def modelnet40(put: Put, picture: Encode, flo: Encode) -> None:
    mesh = b"OFF4 2 0\n0 0 0\n1 0 0\n1 1 %d\n0 1 0\n3 0 1 2\n3 0 2 3\n"
    for number in range(TRAIN + HELD):
        split = "train" if number < TRAIN else "test"
        put(f"class{number % 3}/{split}/{number:04d}.off", mesh % (number % 3))


def chairs(put: Put, picture: Encode, flo: Encode) -> None:
    size = (48, 32)
    for number in range(1, TRAIN + HELD + 1):
        put(f"data/{number:05d}_img1.ppm", picture(number, "PPM", size))
        put(f"data/{number:05d}_img2.ppm", picture(number, "PPM", size))
        put(f"data/{number:05d}_flow.flo", flo(1, 2, size))
    put("FlyingChairs_train_val.txt", b"1\n" * TRAIN + b"2\n" * HELD)


def glue(put: Put, picture: Encode, flo: Encode) -> None:
    lines = {
        "CoLA": [f"s\t{n % 2}\t\tA sentence {n}." for n in range(4)],
        "SST-2": ["sentence\tlabel", *(f"fine {n}\t{n % 2}" for n in range(4))],
        "MRPC": ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *(f"{n % 2}\t1\t2\tOne {n}\tTwo" for n in range(4))],
        "QQP": [
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            *(f"1\t2\t3\tA{n}?\tB?\t{n % 2}" for n in range(4)),
        ],
        "STS-B": ["index\tsentence1\tsentence2\tscore", *(f"0\tA {n}\tB\t{n}.5" for n in range(4))],
        "MNLI": [
            "index\tsentence1\tsentence2\tgold_label",
            *(f"0\tP\tH\t{label}" for label in ("entailment", "neutral", "contradiction")),
        ],
        "QNLI": ["index\tquestion\tsentence\tlabel", "0\tA?\tB\tentailment", "1\tA?\tC\tnot_entailment"],
        "RTE": ["index\tsentence1\tsentence2\tlabel", "0\tA\tB\tentailment", "1\tA\tC\tnot_entailment"],
    }
    for task, rows in lines.items():
        for split in ("train", "dev_matched" if task == "MNLI" else "dev"):
            put(f"{task}/{split}.tsv", "".join(f"{row}\n" for row in rows).encode())


RUNS: dict[str, tuple[Callable[[Put, Encode, Encode], None], str, list[str], str]] = {
    "imagenet": (imagenet, "perceiver_io_imagenet_conv", ["model.outputs.label.num_classes=3"], "label/accuracy"),
    "modelnet40": (modelnet40, "perceiver_modelnet40", ["model.outputs.label.num_classes=3"], "label/accuracy"),
    "flying-chairs": (chairs, "perceiver_io_flow", [], "flow/end_point_error"),
    "glue": (glue, "perceiver_io_glue", [], "mnli/accuracy"),
}


def perceiver(*words: object) -> None:
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RUNS)
def test_raw_files_become_an_evaluated_run(
    build: Build, put: Put, picture: Encode, flo: Encode, tmp_path: Path, name: str
) -> None:
    write, recipe, overrides, metric = RUNS[name]
    write(put, picture, flo)
    built = build(name)
    run = tmp_path / "run"
    words = [f"data.shards={built.folder}", *overrides, "train.evaluate_every_steps=0"]
    perceiver("train", RECIPES / f"{recipe}.yaml", *words, "--run", run, "--tiny")
    perceiver("eval", run)
    output, of = metric.split("/")
    found = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert np.isfinite(found[output][of]["all"])
