"""Every recipe trains two tiny steps on shards with the inputs that it reads, and is evaluated.

Three are in the ordinary suite. All: RECIPES=all .venv/bin/pytest tests/launch/test_recipes.py
"""

import io
import json
import os
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from configs.run import load
from configs.tiny import load_tiny
from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from launch.cli.cluster_report import Flags
from launch.lifecycle.run_folder import RunFolder
from launch.planning.cluster_plan import cluster_plan
from launch.run import composition

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"
TABLE = Path(__file__).parents[2] / "docs" / "recipes.md"
# Between them: images mixed in pairs and a convolution; sound and clips of several labels; words of a text.
ORDINARY = ("perceiver_io_imagenet_conv", "perceiver_audioset_av", "perceiver_io_mlm_bytes")
CHOSEN = sorted(path.stem for path in RECIPES.glob("*.yaml")) if os.environ.get("RECIPES") == "all" else ORDINARY
CLASSES = 4
GLUE = {"cola": 2, "mnli": 3, "mrpc": 2, "qnli": 2, "qqp": 2, "rte": 2, "sst2": 2}
HEIGHT, WIDTH = 72, 104


def png(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def wav(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes(rng.integers(-9_000, 9_000, 8_000).astype("<i2").tobytes())
    return file.getvalue()


def mp4(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in rng.integers(0, 256, (6, HEIGHT, WIDTH, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def npy(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    np.save(file, rng.normal(size=(40, 3)).astype(np.float32))
    return file.getvalue()


def flo(rng: np.random.Generator) -> bytes:
    motion = rng.normal(size=(HEIGHT, WIDTH, 2)).astype("<f4")
    return b"PIEH" + struct.pack("<ii", WIDTH, HEIGHT) + motion.tobytes()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples with everything that a recipe reads: 16 to train on, 4 to evaluate."""
    folder, rng = tmp_path_factory.mktemp("recipes"), np.random.default_rng(0)
    made = {"png": png, "wav": wav, "mp4": mp4, "npy": npy, "first.png": png, "second.png": png, "flo": flo}
    members = [Literal(make(rng), extension) for extension, make in made.items()]
    rows = [
        Row(
            number,
            (*members, Literal(b"a b a %d" % number, "txt")),
            label=number % CLASSES,
            named_labels={name: number % classes for name, classes in GLUE.items()},
            values={"stsb": (number / 4,)},
            split="test" if number >= 16 else "train",
        )
        for number in range(20)
    ]
    named = {name: [str(label) for label in range(classes)] for name, classes in GLUE.items()}
    build_table(rows, folder / "shards", label_names=[str(label) for label in range(CLASSES)], named_labels=named)
    return folder / "shards"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    known = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "b": 4}, unk_token="[UNK]"))
    known.pre_tokenizer = Whitespace()
    known.save(str(path))
    return path


def typed(name: str, shards: Path, tokenizer: Path) -> list[str]:
    """What is typed for these shards beside the recipe: their place and their classes."""
    text = (RECIPES / f"{name}.yaml").read_text()
    words = [f"data.shards={shards}"]
    if "paper/i6" in text:
        words.append(f"data.inputs.text.tokenizer={tokenizer}")
    if not any(part in text for part in ("training/mlm", "training/flow", "paper/i9,")):
        words.append(f"model.outputs.label.num_classes={CLASSES}")
    if "training/kinetics" in text:
        words += [f"data.inputs.label.num_classes={CLASSES}", f"model.inputs.label.num_classes={CLASSES}"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_the_hours_of_the_table_are_those_that_a_plan_predicts(name: str, tokenizer: Path) -> None:
    path = RECIPES / f"{name}.yaml"
    config = load(path, [f"data.inputs.text.tokenizer={tokenizer}"] if "paper/i6" in path.read_text() else [])
    cluster = Flags(1, 8, "H100", "400Gb", "2GB/s", 2000, 5, 0, 0).cluster()
    plan = cluster_plan(config, cluster)
    [row] = [line for line in TABLE.read_text().splitlines() if line.startswith(f"| {name} |")]
    assert row.split("|")[-2].strip() == f"{plan.run_seconds / 3600:.1f}"
    assert plan.fits


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_recipe_trains_its_tiny_run_and_is_evaluated(
    name: str, shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    config = load_tiny(RECIPES / f"{name}.yaml", typed(name, shards, tokenizer))
    folder = RunFolder(tmp_path / "run")
    assert composition.main(config, folder.path, as_json=True) == 0
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    [evaluation] = [line for line in lines if line["kind"] == "evaluation"]
    assert evaluation["samples"] == 4
