"""How much does a network rely on the order of the pixels? The first paper's comparison (section 4.1) in miniature.

    python -m benchmarks.permuted --mnist mnist_png.zip [--json OUT.json] [--picture docs/pictures/permuted.png]

Five networks are trained on MNIST, with the pixels in rows and in one fixed random order: a Perceiver with Fourier
features, which travel with their pixels, one with learned positions, a Transformer over the pixels of a smaller
picture, a ViT and a ResNet. Every run is a run of the trainer; a seed decides its weights and the order of its samples.
Nothing was chosen on the pictures that are tested: sizes and steps were, on the first 200 test pictures of each digit,
which are left out. Beside it: the operations of a forward pass by the size of the picture, counted.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import torch

from benchmarks.arguments import at_least
from configs.run import RunConfig, load
from data_shards.sources import image_folder
from launch.run import composition
from model.budget.flops import network_cost, total

REPOSITORY = Path(__file__).parents[2]
ORDERS = ("raw", "permuted")
# Of each digit, in the order of their names: sizes and steps were chosen on these test pictures.
LEFT_OUT = {"train": 0, "test": 200}
SIDES = (8, 16, 32, 64, 128)
# The values of the first paper on ImageNet: raw, permuted (tables 1 and 2).
PAPER = {
    "Perceiver, Fourier features": (78.0, 78.0),
    "Perceiver, learned positions": (70.9, 70.9),
    "Transformer over pixels": (57.0, 57.0),
    "ViT": (76.7, 61.7),
    "ResNet": (73.5, 39.4),
}
PERCEIVER = """
  num_latents: 16
  latent_width: 64
  num_cross_attends: 2
  num_blocks: 2
  layers_per_block: 1
  cross_attend: {num_heads: 4, qk_width: 64}
  self_attend: {num_heads: 4}
  cross_attend_form: plain
"""
NETWORKS: Mapping[str, tuple[int, str]] = {
    "Perceiver, Fourier features": (8, PERCEIVER + "  inputs: {image: {positions: {num_bands: 4}}}"),
    "Perceiver, learned positions": (
        8,
        PERCEIVER + "  inputs: {image: {positions: {kind: learned, learned_width: 32}}}",
    ),
    "Transformer over pixels": (6, "  network: {kind: transformer, num_layers: 2}\n  inputs: {image: {}}"),
    "ViT": (8, "  network: {kind: vit, patch: 2}\n  inputs: {image: {}}"),
    "ResNet": (8, "  network: {kind: resnet}\n  inputs: {image: {}}"),
}
"""The side of the picture and the section `model` of each network."""
RUN = """
plugins: [{plugins}]
seed: {seed}
data:
  shards: {shards}
  inputs: {{image: {{modality: permuted_image, order: {order}, height: {side}, width: {side}, num_channels: 1}}}}
  lanes: 8
  window: 256
  num_threads: 1
model:
  outputs: {{digit: {{kind: label, num_classes: 10}}}}
{model}
optimizer: {{learning_rate: 3.0e-3, weight_decay: 0.05, warmup_steps: {warmup}}}
train: {{steps: {steps}, global_batch: 32, log_every_steps: 50}}
checkpoint: {{save_every_steps: 100000, save_every_minutes: 0}}
"""


@dataclass(frozen=True)
class Row:
    """The accuracies of one network, in per cent of the test samples: one number a seed."""

    network: str
    side: int
    parameters: int
    mega_flops: float
    accuracy: dict[str, list[float]]
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="Zip file of train/DIGIT/*.png and test/DIGIT/*.png.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--seeds", type=at_least(1), default=3)
    parser.add_argument("--steps", type=at_least(1), default=300)
    parser.add_argument("--training", type=at_least(1), default=200, help="Training samples of each digit.")
    parser.add_argument("--testing", type=at_least(1), default=500, help="Test samples of each digit.")
    arguments = parser.parse_args()
    if not arguments.mnist:
        parser.error("--mnist: name the zip file of MNIST's pictures")
    # One thread: threads that wait for each other on a shared machine burn CPU seconds.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = _shards(arguments.mnist, Path(folder), {"train": arguments.training, "test": arguments.testing})
        rows = [_row(name, shards, Path(folder), seeds=arguments.seeds, steps=arguments.steps) for name in NETWORKS]
        growth = _growth(shards, Path(folder))
    _print(rows, growth, 10 * arguments.testing)
    if arguments.json:
        found = {"rows": [asdict(row) for row in rows], "mega_flops_by_side": growth}
        arguments.json.write_text(json.dumps(found, indent=1))
    if arguments.picture:
        draw(rows, growth, arguments.picture)


def _shards(mnist: Path, folder: Path, numbers: Mapping[str, int]) -> Path:
    """Build shards of so many pictures of each digit and split."""
    seen: Counter[str] = Counter()
    with zipfile.ZipFile(mnist) as archive:
        for name in sorted(archive.namelist()):
            split, _, digit = name.rpartition("/")[0].partition("/")
            if not name.endswith(".png"):
                continue
            place = seen[f"{split}/{digit}"] - LEFT_OUT[split]
            seen[f"{split}/{digit}"] += 1
            if 0 <= place < numbers[split]:
                archive.extract(name, folder / "pictures")
    image_folder.build(folder / "pictures", folder / "shards", samples_per_shard=250, progress=None)
    return folder / "shards"


def _config(name: str, shards: Path, folder: Path, *, order: str, seed: int, steps: int, side: int = 0) -> RunConfig:
    examples = (REPOSITORY / "examples" / "networks").glob("*.py")
    plugins = ", ".join(str(path) for path in (Path(__file__).with_name("permuted_image.py"), *sorted(examples)))
    usual, model = NETWORKS[name]
    words = {"plugins": plugins, "shards": shards, "model": model, "side": side or usual}
    (folder / "run.yaml").write_text(RUN.format(**words, order=order, seed=seed, steps=steps, warmup=min(20, steps)))
    return load(folder / "run.yaml")


def _row(name: str, shards: Path, folder: Path, *, seeds: int, steps: int) -> Row:
    accuracy: dict[str, list[float]] = {order: [] for order in ORDERS}
    start = time.process_time()
    for order in ORDERS:
        for seed in range(seeds):
            config = _config(name, shards, folder, order=order, seed=seed, steps=steps)
            accuracy[order].append(_trained(config, folder / f"{name}_{order}_{seed}"))
        sys.stderr.write(f"{name}, {order}: {', '.join(f'{each:.1f}' for each in accuracy[order])}\n")
    cost = total(network_cost(config.model))
    seconds = (time.process_time() - start) / (len(ORDERS) * seeds)
    return Row(name, NETWORKS[name][0], cost.parameters, cost.flops / 1e6, accuracy, seconds)


def _trained(config: RunConfig, run: Path) -> float:
    """Train a run and return the accuracy of its last evaluation in per cent."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        composition.main(config, run, as_json=True)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(100 * [record["digit/accuracy"] for record in records if record["kind"] == "evaluation"][-1])


def _growth(shards: Path, folder: Path) -> dict[str, dict[int, float]]:
    """Return 10^6 operations of a forward pass by side, of each network."""
    return {
        name: {
            side: total(
                network_cost(_config(name, shards, folder, order="raw", seed=0, steps=1, side=side).model)
            ).flops
            / 1e6
            for side in SIDES
        }
        for name in NETWORKS
    }


def _print(rows: Sequence[Row], growth: Mapping[str, Mapping[int, float]], num_tested: int) -> None:
    print("| network | side | parameters | MFLOP | raw | permuted | CPU s a run | paper: raw | permuted |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        found = " | ".join(_words(row.accuracy[order]) for order in ORDERS)
        paper = " | ".join(f"{each:.1f}" for each in PAPER[row.network])
        print(
            f"| {row.network} | {row.side} | {row.parameters:,} | {row.mega_flops:.1f} | {found} | "
            f"{row.cpu_seconds:.0f} | {paper} |"
        )
    error = 100 * (0.09 / num_tested) ** 0.5
    print(f"\nOf {num_tested} test samples an accuracy of 90 % has a standard error of {error:.1f} points.")
    print("\n| MFLOP of a forward pass | " + " | ".join(f"{side} x {side}" for side in SIDES) + " |")
    print("|---" * (len(SIDES) + 1) + "|")
    for name, by_side in growth.items():
        print(f"| {name} | " + " | ".join(f"{flops:,.1f}" for flops in by_side.values()) + " |")


def _words(values: Sequence[float]) -> str:
    """Return mean and standard deviation over the seeds."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def draw(rows: Sequence[Row], growth: Mapping[str, Mapping[int, float]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    for number, order in enumerate(ORDERS):
        middle = [statistics.mean(row.accuracy[order]) for row in rows]
        error = [statistics.stdev(row.accuracy[order]) if len(row.accuracy[order]) > 1 else 0 for row in rows]
        at = [index + 0.2 * (2 * number - 1) for index in range(len(rows))]
        left.barh(at, middle, 0.38, xerr=error, label=f"pixels {'in rows' if order == 'raw' else 'permuted'}")
    left.set_yticks(range(len(rows)), [row.network for row in rows])
    lowest = min(min(values) for row in rows for values in row.accuracy.values())
    left.set(xlim=(max(lowest - 10, 0), 100), xlabel="test accuracy, %")
    left.invert_yaxis()
    # Below, since every bar begins at the left and may end at the right.
    left.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2, fontsize=8)
    for name, by_side in growth.items():
        right.plot([side**2 for side in by_side], list(by_side.values()), marker="o", label=name)
    right.set(xscale="log", yscale="log", xlabel="pixels", ylabel="10^6 operations, forward")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
