"""The pictures of a run: its loss curve, and test samples with their predictions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter
from PIL import Image

from data_shards.files import atomic
from data_shards.files.display import printable, unknown_glyphs_as_boxes
from data_shards.files.history import is_number, lines
from data_shards.modalities.drawing import draw_picture, draw_values, hide_frame
from trainer.tasks.metric import Metric

COLUMNS = 8
_TITLE_CHARACTERS = 40
_TICK_CHARACTERS = 12
_MOST_NAMED = 40
_MOST_WRITTEN = 12
"""Classes of a confusion matrix whose cells have room for their numbers."""


class _Plain(LogFormatter):
    """0.03 in place of 3e-02, where there is room for a number."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _plain_ticks(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis, which has few ticks between two powers of ten and names them too."""
    axis.set_major_formatter(_Plain())
    axis.set_minor_formatter(_Plain(minor_thresholds=(1.0, 0.4)))


def loss_curve(metrics_path: Path, out: Path, output: str, metric: Metric) -> None:
    """Draw the training loss by step, and a metric of the evaluations beside it, from a run's metrics.jsonl."""
    rows = lines(metrics_path)
    losses = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train" and is_number(row.get("loss"))]
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    # Not by pyplot, which keeps every figure and may ask for a display.
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if losses:
        left.plot(*zip(*losses, strict=True), linewidth=0.8)
    left.set(title="training loss", xlabel="step", yscale="log")
    _plain_ticks(left.yaxis)
    of_metric = f"{output}/{metric.name}"
    keys = [key for key in (evaluations[-1] if evaluations else ()) if f"{key}/".startswith(f"{of_metric}/")]
    for key in keys:
        points = [(row["step"], row[key]) for row in evaluations if is_number(row.get(key))]
        shown = key.removeprefix(of_metric).removeprefix("/")
        right.plot(
            *zip(*points, strict=True), ".-", label=f"only {_short(shown, _TICK_CHARACTERS)}" if shown else "all inputs"
        )
    right.set(xlabel="step")
    right.set_title(_title(output, metric), parse_math=False)
    if metric.highest is not None:
        right.set(ylim=(0, metric.highest))
    if keys:
        legend = right.legend(loc="lower right" if metric.higher_is_better else "upper right")
        _without_formulas(legend.get_texts())
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    _save(figure, out)


def _title(output: str, metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit and metric.unit != "%" else ""
    return printable(f"{output}: {metric.name.replace('_', ' ')}{unit}")


def predictions(
    images: np.ndarray, truths: Sequence[str], guesses: Sequence[str], out: Path, *, is_unit: bool = True
) -> None:
    """Draw test images (N, H, W, channels) with their predictions; wrong ones are red and show the truth too.

    Floats lie in [0, 1] or, where `is_unit` is false, in any range, which is then that of each image.
    """
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(1.3 * COLUMNS, 1.5 * rows), layout="constrained")
    cells = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for cell in cells[len(images) :]:
        hide_frame(cell)
    for cell, image, truth, guess in zip(cells, images, truths, guesses, strict=False):
        draw_picture(cell, image, is_unit=is_unit)
        _caption(cell, truth, guess)
    _save(figure, out)


def arrays(values: Sequence[np.ndarray], truths: Sequence[str], guesses: Sequence[str], out: Path) -> None:
    """Draw arrays of any shape with their predictions, as of images; where nothing is predicted both are a name."""
    rows = -(-len(values) // COLUMNS)
    figure = Figure(figsize=(1.6 * COLUMNS, 1.6 * rows), layout="constrained")
    cells = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for cell in cells[len(values) :]:
        hide_frame(cell)
    for cell, each, truth, guess in zip(cells, values, truths, guesses, strict=False):
        draw_values(cell, each)
        _caption(cell, truth, guess)
    _save(figure, out)


def _caption(cell: Axes, truth: str, guess: str) -> None:
    is_right = truth == guess
    title = guess if is_right else f"{guess}, is {truth}"
    # Class names are no formulas, whatever dollar signs they have.
    cell.set_title(_short(title), color="black" if is_right else "red", fontsize=9, parse_math=False)


def quality_over_cost(
    latents: Sequence[int],
    costs: Mapping[str, Sequence[float]],
    values: Sequence[float],
    output: str,
    metric: Metric,
    out: Path,
) -> None:
    """Draw a metric over each kind of cost, with a point for each number of latents."""
    figure = Figure(figsize=(4.5 * len(costs), 4), layout="constrained")
    for axes, (label, spent) in zip(figure.subplots(1, len(costs), squeeze=False)[0], costs.items(), strict=True):
        axes.plot(spent, values, ".-")
        for number, *point in zip(latents, spent, values, strict=True):
            axes.annotate(str(number), point, textcoords="offset points", xytext=(4, -10), fontsize=8)
        axes.set(xlabel=label, xscale="log")
        axes.margins(x=0.1)  # room for the number beside the last point
        _plain_ticks(axes.xaxis)
        if metric.unit == "%":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(_title(output, metric), parse_math=False)
        axes.grid(alpha=0.3)
    _save(figure, out)


def confusion(counts: np.ndarray, names: Sequence[str], out: Path) -> None:
    """Draw how often each true class (a row) was answered with each class (a column), as parts of the row."""
    # A class without samples has a row of zeros, and not of NaN.
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(parts, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="answered", ylabel="true")
    for (row, column), part in np.ndenumerate(parts if len(counts) <= _MOST_WRITTEN else np.empty((0, 0))):
        axes.text(
            column, row, f"{part:.0%}", ha="center", va="center", fontsize=8, color="white" if part > 0.5 else "black"
        )
    # More names would lie on top of each other.
    if len(counts) <= _MOST_NAMED:
        titles = [_short(name, _TICK_CHARACTERS) for name in names] or [str(number) for number in range(len(counts))]
        axes.set_xticks(range(len(counts)), titles, rotation=90)
        axes.set_yticks(range(len(counts)), titles)
        _without_formulas([*axes.get_xticklabels(), *axes.get_yticklabels()])
    _save(figure, out)


def reconstructions(truths: np.ndarray, drawn: np.ndarray, out: Path, *, is_unit: bool = True) -> None:
    """Save the picture of `samples` inputs and their reconstructions."""
    _save(samples({"input": truths, "drawn": drawn}, is_unit=is_unit), out)


def samples(rows: Mapping[str, np.ndarray], *, is_unit: bool = True) -> Figure:
    """Draw a row a title of samples (N, ..., channels), whose pixels lie in [0, 1], or else in the first row's range.

    Pictures (N, H, W, channels) are shown whole, of clips (N, T, H, W, 3) the middle frame, of recordings the wave.
    """
    figure = Figure(figsize=(1.3 * COLUMNS, 1.5 * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), COLUMNS, squeeze=False)
    first = next(iter(rows.values()))
    low, high = (0.0, 1.0) if is_unit else (float(first.min()), float(first.max()))
    for row, (title, values) in enumerate(rows.items()):
        for cell, value in zip(cells[row], values, strict=False):
            if value.ndim > 2:
                bright = (value - low) / ((high - low) or 1)
                draw_picture(cell, bright[len(value) // 2] if value.ndim > 3 else bright, is_unit=True)
            else:
                cell.plot(value.ravel(), linewidth=0.3)
                cell.set_ylim(-1, 1)
        cells[row][0].set_title(title, fontsize=9)
    for cell in cells.ravel():
        cell.set(xticks=[], yticks=[])
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as a picture, uint8 (H, W, 3)."""
    # Not by pyplot, which keeps each figure until it is closed, and may look for a display.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def _without_formulas(texts: Iterable[Text]) -> None:
    """Let names stand as they are, whatever dollar signs they have."""
    for text in texts:
        text.set_parse_math(False)


def _short(name: str, num_characters: int = _TITLE_CHARACTERS) -> str:
    title = printable(name)
    return title if len(title) <= num_characters else f"{title[:num_characters]}…"


def _save(figure: Figure, out: Path) -> None:
    # A picture is drawn again by the next evaluation: it need not outlive a power cut.
    with unknown_glyphs_as_boxes(), atomic.written_beside(out, survives_power_cut=False) as file:
        # Not by `savefig`, which draws a figure with a layout twice.
        Image.fromarray(pixels(figure)).save(file, format="png")
