"""Data of other fields, from a user's files to a figure: built, trained, killed, resumed with equal bits, and learned.

Each is made with a known signal. A network has learned it where at least half of the fault of a trivial answer is gone.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from warm_start import finished

MakeRun = Callable[..., Any]
Rows = list[dict[str, Any]]
TRAIN, TEST = 96, 32
SMALL = """
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.004, warmup_steps: 5}
checkpoint: {save_every_steps: 10, save_every_minutes: 0}
"""


@dataclass(frozen=True)
class Domain:
    """A field of its own: how its files are made, and the run that learns from them."""

    write: Callable[[Path, np.random.Generator], tuple[Rows, dict[str, float]]]
    """Writes the files and returns the rows of their table, and what each metric is for a trivial answer."""
    config: str


def splits() -> list[str]:
    return ["train"] * TRAIN + ["test"] * TEST


def save(folder: Path, name: str, array: NDArray[Any]) -> str:
    np.save(folder / name, array.astype(np.float32))
    return name


def spread(values: list[NDArray[Any]]) -> float:
    """Return the root mean squared error on the test split of an answer that is the mean of the training split."""
    return float(np.sqrt(np.mean((np.stack(values[TRAIN:]) - np.mean(values[:TRAIN])) ** 2)))


def write_eeg(folder: Path, random: np.random.Generator) -> tuple[Rows, dict[str, float]]:
    """Windows of 1 s from 4 electrodes: one of two rhythms of 6 to 9 or 15 to 25 Hz in noise; trivial: one class."""
    rows: Rows = []
    for number, split in enumerate(splits()):
        is_fast = bool(random.random() < 0.4)
        hertz = random.uniform(15, 25) if is_fast else random.uniform(6, 9)
        wave = np.sin(2 * np.pi * (hertz * np.arange(128)[:, None] / 128 + random.random(4)))
        name = save(folder, f"{number}.npy", 20 * (wave + random.normal(0, 0.3, (128, 4))))
        rows.append({"member.eeg": name, "label": ("slow", "fast")[is_fast], "value.hertz": hertz, "split": split})
    slow = [row["label"] == "slow" for row in rows[TRAIN:]]
    baselines = {
        "rhythm/accuracy": max(np.mean(slow), 1 - np.mean(slow)),
        "hertz/root_mean_squared_error": spread([np.array(row["value.hertz"]) for row in rows]),
    }
    return rows, baselines


EEG = f"""
data:
  inputs: {{eeg: {{modality: array, members: eeg.npy, shape: [128, 4], axes: [time, channel], standardize: true}}}}
  values: [hertz]
  lanes: 2
  window: 32
train: {{steps: 80, global_batch: 16, log_every_steps: 1}}
model:
  inputs: {{eeg: {{patch: [16], positions: {{num_bands: 4}}}}}}
  outputs:
    rhythm: {{kind: label, num_classes: 2, pooling: query}}
    hertz: {{kind: value, offset: 13, scale: 6, pooling: query}}
{SMALL}"""


def write_weather(folder: Path, random: np.random.Generator) -> tuple[Rows, dict[str, float]]:
    """Anomalies of temperature at 24 stations that move, asked at 16 other places: a slope to the north or south."""
    rows: Rows = []
    asked = []
    for number, split in enumerate(splits()):
        slope, mean = random.choice([-1, 1]), random.normal(0, 0.1)
        places = random.uniform(-1, 1, (40, 2))
        degrees = mean + slope * places[:, :1] + random.normal(0, 0.05, (40, 1))
        asked.append(degrees[24:])
        rows.append(
            {
                "member.seen": save(folder, f"{number}.seen.npy", degrees[:24]),
                "member.stations": save(folder, f"{number}.stations.npy", 90 * places[:24]),
                "member.asked": save(folder, f"{number}.asked.npy", degrees[24:]),
                "member.places": save(folder, f"{number}.places.npy", 90 * places[24:]),
                "split": split,
            }
        )
    return rows, {"asked/root_mean_squared_error": spread(asked)}


WEATHER = f"""
data:
  inputs:
    seen: {{modality: array, members: seen.npy, shape: [24, 1], coordinates: stations.npy, num_axes: 2,
           coordinates_min: [-90, -90], coordinates_max: [90, 90]}}
    asked: {{modality: array, members: asked.npy, shape: [16, 1], coordinates: places.npy, num_axes: 2,
            coordinates_min: [-90, -90], coordinates_max: [90, 90], nan: keep}}
  lanes: 2
  window: 32
train: {{steps: 80, global_batch: 16, log_every_steps: 1}}
model:
  inputs: {{seen: {{positions: {{num_bands: 2, max_resolution: [4, 4]}}}}}}
  outputs: {{asked: {{kind: points, coordinates: asked.coordinates, num_bands: 2, max_frequency: 2}}}}
{SMALL}"""


def write_cameras(folder: Path, random: np.random.Generator) -> tuple[Rows, dict[str, float]]:
    """A wall of any colour at any distance, which lies in what the left camera sees further right than in the right."""
    rows: Rows = []
    maps = []
    for number, split in enumerate(splits()):
        colour, millimetres = random.uniform(0, 255, 3), random.uniform(6_000, 60_000)
        views = np.full((2, 8, 8, 3), 128.0)
        shift = round(12_000 / millimetres)
        views[0, :, 2 + shift :], views[1, :, 2 - shift : 8 - 2 * shift] = colour, colour
        depth = millimetres + random.normal(0, 500, (8, 8))
        maps.append(depth / 65_535)
        noisy = (views + random.normal(0, 4, views.shape)).clip(0, 255).astype(np.uint8)
        for name, pixels in (("left", noisy[0]), ("right", noisy[1]), ("depth", depth.astype(np.uint16))):
            Image.fromarray(pixels).save(folder / f"{number}.{name}.png")
        rows.append(
            {f"member.{name}": f"{number}.{name}.png" for name in ("left", "right", "depth")} | {"split": split}
        )
    return rows, {"scene/recall_at_1": 1 / TEST, "depth/root_mean_squared_error": spread(maps)}


CAMERAS = f"""
data:
  inputs:
    left: {{modality: image, members: left.png, height: 8, width: 8}}
    right: {{modality: image, members: right.png, height: 8, width: 8}}
    depth: {{modality: image, members: depth.png, height: 8, width: 8, num_channels: 1, values: unit}}
  lanes: 2
  window: 32
train: {{steps: 40, global_batch: 32, micro_batch: 16, log_every_steps: 1}}
model:
  mask_tokens: true
  inputs:
    left: {{patch: 4, positions: {{num_bands: 2}}}}
    right: {{patch: 4, positions: {{num_bands: 2}}}}
    depth: {{patch: 2, positions: {{num_bands: 2}}}}
  outputs:
    scene: {{kind: embedding, pair: [left, right], width: 8}}
    depth: {{kind: masked, fraction: 0.5}}
{SMALL}"""


def write_clouds(folder: Path, random: np.random.Generator) -> tuple[Rows, dict[str, float]]:
    """Coloured clouds of 48 points, and the colours at 16 other places: of one hue, and brighter above."""
    rows: Rows = []
    colours = []
    head = ("ply", "format ascii 1.0", "element vertex 48", *(f"property float {axis}" for axis in "xyz"))
    head += (*(f"property uchar {colour}" for colour in ("red", "green", "blue")), "end_header")
    for number, split in enumerate(splits()):
        places = random.uniform(-1, 1, (64, 3))
        shades = (random.uniform(0.2, 0.8, 3) + 0.2 * places[:, 2:]).clip(0, 1)
        colours.append(shades[48:])
        points = [
            " ".join([*(f"{axis:.4f}" for axis in place), *map(str, (255 * shade).astype(int))])
            for place, shade in zip(places[:48], shades[:48], strict=True)
        ]
        (folder / f"{number}.ply").write_text("\n".join((*head, *points)) + "\n")
        rows.append(
            {
                "member.cloud": f"{number}.ply",
                "member.places": save(folder, f"{number}.places.npy", places[48:]),
                "member.colours": save(folder, f"{number}.colours.npy", shades[48:]),
                "split": split,
            }
        )
    return rows, {"colours/root_mean_squared_error": spread(colours)}


CLOUDS = f"""
data:
  inputs:
    cloud: {{modality: points, members: cloud.ply, num_points: 48, features: [red, green, blue], permute: true}}
    places: {{modality: array, members: places.npy, shape: [16, 3]}}
    colours: {{modality: array, members: colours.npy, shape: [16, 3]}}
  lanes: 2
  window: 32
train: {{steps: 80, global_batch: 16, log_every_steps: 1}}
model:
  inputs: {{cloud: {{num_bands: 2}}}}
  outputs:
    colours: {{kind: points, coordinates: places, num_axes: 3, num_channels: 3, num_bands: 2, max_frequency: 2}}
{SMALL}"""


def write_sentences(folder: Path, random: np.random.Generator) -> tuple[Rows, dict[str, float]]:
    """Sentences of 12 words, one of 8 pairs of words in turns; trivial: always the commonest word."""
    words = [f"w{number}" for number in range(16)]
    tokenizer = Tokenizer(
        WordLevel({word: number for number, word in enumerate(("[PAD]", "[UNK]", "[MASK]", *words))}, "[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    pairs = random.integers(0, 8, TRAIN + TEST)
    sentences = [" ".join([f"w{pair} w{pair + 8}"] * 6) for pair in pairs]
    rows: Rows = [{"text": text, "split": split} for text, split in zip(sentences, splits(), strict=True)]
    return rows, {"text/accuracy": float(np.bincount(pairs[TRAIN:]).max()) / (2 * TEST)}


SENTENCES = f"""
data:
  inputs: {{text: {{modality: text, tokenizer: tokenizer.json, num_tokens: 12, masking: {{probability: 0.2}}}}}}
  lanes: 2
  window: 32
train: {{steps: 80, global_batch: 32, log_every_steps: 1}}
model:
  inputs: {{text: {{embedding_width: 32}}}}
  outputs: {{text: {{kind: text}}}}
{SMALL}"""

DOMAINS = {
    "eeg": Domain(write_eeg, EEG),
    "weather": Domain(write_weather, WEATHER),
    "cameras": Domain(write_cameras, CAMERAS),
    "clouds": Domain(write_clouds, CLOUDS),
    "sentences": Domain(write_sentences, SENTENCES),
}


def perceiver(*words: object) -> None:
    done = finished([sys.executable, "-m", "launch", *map(str, words)])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", DOMAINS)
def test_a_field_of_ones_own_is_learned_and_resumes_after_a_kill_with_equal_bits(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    domain, raw, shards = DOMAINS[name], tmp_path / "raw", tmp_path / "shards"
    raw.mkdir()
    rows, baselines = domain.write(raw, np.random.default_rng(0))
    (raw / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    perceiver("data", "build", "table", raw / "samples.jsonl", shards, "--jobs", "1")
    config = raw / "run.yaml"
    config.write_text(domain.config)
    undisturbed = make_run("undisturbed", config=config, shards=shards)
    killed = make_run("killed", config=config, shards=shards)
    perceiver("train", config, f"data.shards={shards}", "--run", undisturbed.folder)
    killed.kill_after_checkpoint(step=20, rank=0)
    perceiver("train", config, f"data.shards={shards}", "--run", killed.folder)
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()
    perceiver("eval", killed.folder)
    figures = evaluated(killed.folder)
    for metric, trivial in baselines.items():
        fault = figures[metric] if metric.endswith("error") else 1 - figures[metric]
        assert fault <= 0.5 * (trivial if metric.endswith("error") else 1 - trivial), (metric, figures[metric], trivial)


def evaluated(folder: Path) -> dict[str, float]:
    """Return the metrics of the last evaluation, by OUTPUT/METRIC."""
    found = json.loads((folder / "evaluation.json").read_text())["metrics"]
    return {f"{output}/{metric}": values["all"] for output, of in found.items() for metric, values in of.items()}
