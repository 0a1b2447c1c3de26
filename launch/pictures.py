"""The pictures that a run leaves: its loss curve, and test samples with their predictions."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

COLUMNS = 8


def loss_curve(metrics_path: Path, out: Path) -> None:
    """Draw the training loss by step, and the accuracy of the evaluations beside it, from a run's metrics.jsonl."""
    rows = [json.loads(line) for line in metrics_path.read_text().splitlines()]
    losses = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if losses:
        left.plot(*zip(*losses, strict=True), linewidth=0.8)
    left.set(title="training loss", xlabel="step", ylabel="cross-entropy", yscale="log")
    for name in (key for key in (evaluations[-1] if evaluations else ()) if key.startswith("accuracy/")):
        points = [(row["step"], row[name]) for row in evaluations if name in row]
        right.plot(*zip(*points, strict=True), ".-", label=name.removeprefix("accuracy/"))
    right.set(title="test accuracy", xlabel="step", ylim=(0, 1))
    if evaluations:
        right.legend(title="modalities", loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    _save(figure, out)


def predictions(images: np.ndarray, truths: Sequence[str], guesses: Sequence[str], out: Path) -> None:
    """Draw test images (N, H, W, 3) with their predictions; wrong ones are red and show the truth too."""
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(1.3 * COLUMNS, 1.5 * rows), layout="constrained")
    cells = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for cell in cells:
        cell.axis("off")
    for cell, image, truth, guess in zip(cells, images, truths, guesses, strict=False):
        cell.imshow(image)
        right = truth == guess
        cell.set_title(guess if right else f"{guess}, is {truth}", color="black" if right else "red", fontsize=9)
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    beside = out.with_name(f".{out.name}")
    figure.savefig(beside, format="png", dpi=100)
    beside.replace(out)
