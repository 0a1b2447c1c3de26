"""The pictures of a run: its loss curve, and test samples with their predictions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from data_shards.modalities.drawing import MAX_CURVES, draw_picture, draw_values, hide_frame
from trainer.tasks.metric import Metric

COLUMNS = 8
_TITLE_CHARACTERS = 40
_TICK_CHARACTERS = 12
_GREY = 0.6
"""How bright what was hidden is drawn."""
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
    axis.set_minor_formatter(_Plain())


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
    # With the slash: accuracy is not the beginning of accuracy_5, but of accuracy/image.
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
        # Where more is better a curve ends at the top, and the legend lies at the other end.
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
    if len(counts) <= _MOST_WRITTEN:
        for (row, column), part in np.ndenumerate(parts):
            color = "white" if part > 0.5 else "black"
            axes.text(column, row, f"{part:.0%}", ha="center", va="center", fontsize=8, color=color)
    # More names would lie on top of each other.
    if len(counts) <= _MOST_NAMED:
        titles = [_short(name, _TICK_CHARACTERS) for name in names] or [str(number) for number in range(len(counts))]
        axes.set_xticks(range(len(counts)), titles, rotation=90)
        axes.set_yticks(range(len(counts)), titles)
        _without_formulas([*axes.get_xticklabels(), *axes.get_yticklabels()])
    _save(figure, out)


def reconstructions(
    truths: np.ndarray,
    drawn: np.ndarray,
    out: Path,
    *,
    seen: np.ndarray | None,
    num_entries: int,
    is_unit: bool,
) -> None:
    """Save the picture of `samples` inputs and their reconstructions; see `rows_of`."""
    _save(samples(rows_of(truths, drawn, seen, num_entries), is_unit=is_unit), out)


def rows_of(truths: np.ndarray, drawn: np.ndarray, seen: np.ndarray | None, num_entries: int) -> dict[str, np.ndarray]:
    """Return the rows of a picture of reconstructions by their titles, with what was seen where a part was hidden.

    `num_entries` is the length of an input of one axis: its cells may be patches, whose channels follow each other.
    """
    rows = {"input": truths, "drawn": drawn} if seen is None else {"shown": seen, "answer": drawn, "true": truths}
    if truths.ndim > 3 or not num_entries:
        return rows
    return {title: values.reshape(len(values), num_entries, -1) for title, values in rows.items()}


def samples(rows: Mapping[str, np.ndarray], *, is_unit: bool = True) -> Figure:
    """Draw a row a title of samples (N, ..., channels), whose pixels lie in [0, 1], or else in the last row's range.

    Pictures (N, H, W, channels) are shown whole, of clips (N, T, H, W, 3) the middle frame, of what has one axis and
    few channels curves. What is NaN in the first row was hidden: it is grey.
    """
    figure = Figure(figsize=(1.3 * COLUMNS, 1.5 * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), COLUMNS, squeeze=False)
    limits = (0.0, 1.0) if is_unit else _range([*rows.values()][-1])
    for row, (title, values) in enumerate(rows.items()):
        for cell, value, shown in zip(cells[row], values, next(iter(rows.values())), strict=False):
            if value.ndim > 2:
                _draw_cells(cell, value, limits)
            else:
                hidden = np.isnan(shown) if shown.shape == value.shape else np.zeros(value.shape, bool)
                _draw_curves(cell, value, hidden, (-1.0, 1.0) if is_unit else limits)
        cells[row][0].set_title(title, fontsize=9)
    for cell in cells.ravel():
        cell.set(xticks=[], yticks=[])
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _draw_cells(cell: Axes, value: np.ndarray, limits: tuple[float, float]) -> None:
    low, high = limits
    bright = np.nan_to_num((value - low) / ((high - low) or 1), nan=_GREY)
    draw_picture(cell, bright[len(value) // 2] if value.ndim > 3 else bright, is_unit=True)


def _draw_curves(cell: Axes, value: np.ndarray, hidden: np.ndarray, limits: tuple[float, float]) -> None:
    """Draw values (length, channels) as a curve each, many channels as a heat map."""
    rows = value.reshape(len(value), -1)
    low, high = limits
    if rows.shape[1] > MAX_CURVES:
        # Through what is NaN the ground is seen.
        cell.set_facecolor(str(_GREY))
        cell.imshow(rows.T, aspect="auto", vmin=low, vmax=high)
        return
    cell.plot(rows, linewidth=0.3 if rows.shape[1] == 1 else 0.6)
    margin = 0.05 * (high - low)
    cell.set(xlim=(-0.5, len(rows) - 0.5), ylim=(low - margin, high + margin) if limits != (-1.0, 1.0) else limits)
    for start, end in _runs(np.asarray(hidden.reshape(len(rows), -1).any(axis=1))):
        cell.axvspan(start - 0.5, end - 0.5, color=str(_GREY), alpha=0.5, linewidth=0)


def _runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield where each run of true ones begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


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
