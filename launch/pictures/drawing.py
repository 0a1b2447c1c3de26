"""The pictures that a run leaves: its loss curve, and test samples with their predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_shards.files import atomic
from data_shards.files.display import printable, unknown_glyphs_as_boxes
from data_shards.files.history import is_number, lines

COLUMNS = 8
_TITLE_CHARACTERS = 40


def loss_curve(metrics_path: Path, out: Path) -> None:
    """Draw the training loss by step, and the scores of the evaluations beside it, from a run's metrics.jsonl."""
    rows = lines(metrics_path)
    losses = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train" and is_number(row.get("loss"))]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if losses:
        left.plot(*zip(*losses, strict=True), linewidth=0.8)
    left.set(title="training loss", xlabel="step", yscale="log")
    scores = [key for key in (evaluations[-1] if evaluations else ()) if "/" in key]
    measure = scores[0].partition("/")[0] if scores else "accuracy"
    for name in (key for key in scores if key.startswith(f"{measure}/")):
        points = [(row["step"], row[name]) for row in evaluations if is_number(row.get(name))]
        right.plot(*zip(*points, strict=True), ".-", label=name.partition("/")[2])
    right.set(xlabel="step")
    right.set_title(f"evaluation: {printable(measure.replace('_', ' '))}", parse_math=False)
    if measure != "psnr":
        right.set(ylim=(0, 1))
    if scores:
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
        title = printable(guess if right else f"{guess}, is {truth}")
        shown = title if len(title) <= _TITLE_CHARACTERS else f"{title[:_TITLE_CHARACTERS]}…"
        # Class names are no formulas, whatever dollar signs they have.
        cell.set_title(shown, color="black" if right else "red", fontsize=9, parse_math=False)
    _save(figure, out)


def reconstructions(truths: np.ndarray, drawn: np.ndarray, out: Path) -> None:
    """Save the picture of `samples` of what was to be drawn again and what the network drew."""
    _save(samples({"input": truths, "drawn": drawn}), out)


def samples(rows: Mapping[str, np.ndarray]) -> Figure:
    """Draw a row a title of samples (N, ..., channels), whose pixels lie in [0, 1].

    Pictures (N, H, W, 3) are shown whole, of clips (N, T, H, W, 3) the middle frame, of recordings the wave.
    """
    figure = Figure(figsize=(1.3 * COLUMNS, 1.5 * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for row, (title, values) in enumerate(rows.items()):
        for cell, value in zip(cells[row], values, strict=False):
            if value.ndim > 2:
                cell.imshow((value[len(value) // 2] if value.ndim > 3 else value).clip(0, 1))
            else:
                cell.plot(value.ravel(), linewidth=0.3)
                cell.set_ylim(-1, 1)
        cells[row][0].set_title(title, fontsize=9)
    for cell in cells.ravel():
        cell.set(xticks=[], yticks=[])
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as a picture, uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def _save(figure: Figure, out: Path) -> None:
    with unknown_glyphs_as_boxes(), atomic.written_beside(out, survives_power_cut=False) as file:
        figure.savefig(file, format="png", dpi=100)
