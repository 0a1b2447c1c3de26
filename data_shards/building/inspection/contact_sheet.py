"""A picture of some samples of a shard folder, to look at before a run starts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_shards.building.inspection.spread_samples import Members, spread
from data_shards.files.display import printable, unknown_glyphs_as_boxes
from data_shards.format import manifest
from data_shards.format.annotations import NO_LABEL, notes
from data_shards.modalities.drawing import write_words
from data_shards.modalities.kinds.catalogue import inputs_of
from data_shards.modalities.modality import Modality, select

_TITLES = MappingProxyType({"audio": "audio (s, kHz)"})
INCHES = 1.7


def contact_sheet(
    folder: Path,
    out_png: Path,
    *,
    split: str = "train",
    num_samples: int = 16,
    inputs: Mapping[str, Modality] | None = None,
) -> int:
    """Write a PNG with a row a sample and a column an input; return the number of samples shown.

    The samples are spread evenly over the split. Without inputs, everything that they hold is drawn. Raises ValueError
    where the folder or a sample cannot be read.
    """
    contents = manifest.read(folder)
    samples = spread(folder, contents.split(split).shards, num_samples)
    columns = inputs or inputs_of({suffix for _, members in samples for suffix in members})
    figure = Figure(figsize=(INCHES * (len(columns) + 1), INCHES * len(samples) + 0.4), dpi=110, layout="constrained")
    grid = figure.subplots(len(samples), len(columns) + 1, squeeze=False)
    for cells, (key, members) in zip(grid, samples, strict=True):
        write_words(cells[0], "\n".join(map(printable, [key, *_labels(members, contents)])))
        for axes, section in zip(cells[1:], columns.values(), strict=True):
            _draw_input(axes, section, members)
    for axes, title in zip(grid[0], ["label", *columns], strict=True):
        axes.set_title(_TITLES.get(title, title), fontsize=9)
    # Not by pyplot: it looks for a display, and keeps every figure until it is told otherwise.
    FigureCanvasAgg(figure)
    try:
        out_png.parent.mkdir(parents=True, exist_ok=True)
        with unknown_glyphs_as_boxes():
            figure.savefig(out_png, format="png")
    except OSError as error:
        raise ValueError(f"{out_png}: cannot be written ({error.strerror}); choose another file") from error
    return len(samples)


def _labels(members: Members, contents: manifest.Manifest) -> Iterator[str]:
    try:
        known = notes(members, contents.records)
    except ValueError as error:
        # As with a member that cannot be decoded: a sheet is for finding such samples.
        yield str(error)
        return
    for label in dict.fromkeys((known.label, *known.labels)):
        if label != NO_LABEL:
            yield _class(label, contents.label_names)
    for name, label in known.named_labels.items():
        yield f"{name}: {_class(label, contents.named_labels.get(name, ()))}"
    for name, numbers in known.values.items():
        yield f"{name}: {', '.join(f'{number:g}' for number in numbers)}"


def _class(label: int, names: tuple[str, ...]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _draw_input(axes: Axes, section: Modality, members: Members) -> None:
    try:
        if found := select(section, members):
            section.draw_as_read(axes, found)
        else:
            write_words(axes, "-")
    except ValueError as error:
        # A sheet is for finding such samples: it shows the fault in its place, in red.
        write_words(axes, str(error), color="red")
