"""A picture of some samples of a shard folder, to be looked at by a person before a run is started on it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_shards.files.display import printable, printable_lines, unknown_glyphs_as_boxes
from data_shards.format import manifest
from data_shards.format.annotations import NO_LABEL, notes
from data_shards.format.manifest import MODALITIES
from data_shards.format.members import modality_of
from data_shards.modalities import decode
from data_shards.storage.local_folder import LocalFolder

FRAMES_SHOWN = 4
CHARACTERS_SHOWN = 160
ARROWS = 8
"""Along each side of a frame."""
_TITLES = MappingProxyType({"audio": "audio (s, kHz)"})
INCHES = 1.7
Members = Mapping[str, bytes]
"""Bytes by extension."""


def contact_sheet(folder: Path, out_png: Path, *, split: str = "train", num_samples: int = 16) -> int:
    """Write a PNG with a row a sample and a column a modality; return the number of samples shown.

    The samples are spread evenly over the split. Raises ValueError where the folder or a sample cannot be read.
    """
    contents = manifest.read(folder)
    samples = _spread(folder, contents.split(split).shards, num_samples)
    columns = [modality for modality in MODALITIES if any(modality in _modalities(members) for _, members in samples)]
    figure = Figure(figsize=(INCHES * (len(columns) + 1), INCHES * len(samples) + 0.4), dpi=110, layout="constrained")
    grid = figure.subplots(len(samples), len(columns) + 1, squeeze=False)
    for cells, (key, members) in zip(grid, samples, strict=True):
        _write_words(cells[0], "\n".join(map(printable, [key, *_labels(members, contents)])))
        for axes, modality in zip(cells[1:], columns, strict=True):
            _draw_member(axes, modality, members)
    for axes, title in zip(grid[0], ["label", *columns], strict=True):
        axes.set_title(_TITLES.get(title, title), fontsize=9)
    FigureCanvasAgg(figure)
    try:
        out_png.parent.mkdir(parents=True, exist_ok=True)
        with unknown_glyphs_as_boxes():
            figure.savefig(out_png, format="png")
    except OSError as error:
        raise ValueError(f"{out_png}: cannot be written ({error.strerror}); choose another file") from error
    return len(samples)


def _spread(folder: Path, shards: manifest.Shards, num_samples: int) -> list[tuple[str, Members]]:
    """Return (key, members) of samples at equal distances over all the shards."""
    total = sum(shard.num_samples for shard in shards)
    chosen = np.unique(np.linspace(0, total - 1, min(num_samples, total)).astype(int))
    starts = np.cumsum([0, *(shard.num_samples for shard in shards)])
    samples, place = [], LocalFolder(folder)
    for number in chosen.tolist():
        shard = int(np.searchsorted(starts, number, side="right")) - 1
        samples.append(_read(place, shards[shard], number - int(starts[shard])))
    return samples


def _read(place: LocalFolder, entry: manifest.ShardEntry, sample: int) -> tuple[str, Members]:
    try:
        index = place.index(entry)
        members: dict[str, bytes] = {}
        with place.open(entry) as file:
            for extension, (offset, length) in index.members(sample).items():
                file.seek(offset)
                members[extension] = file.read(length)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); run `perceiver data verify`") from error
    return index.keys[sample], members


def _modalities(members: Members) -> dict[str, str]:
    """Return the extension of each modality that the sample has."""
    found = {modality_of(extension): extension for extension in members}
    return {modality: extension for modality, extension in found.items() if modality is not None}


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


def _class(label: int, names: tuple[str, ...]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _draw_member(axes: Axes, modality: str, members: Members) -> None:
    extension = _modalities(members).get(modality)
    if extension is None:
        _write_words(axes, "-")
        return
    try:
        if modality == "flow":
            _draw_pair(axes, members)
        else:
            _DRAWERS[modality](axes, members[extension])
    except ValueError as error:
        # A sheet is for finding such samples: it shows the fault in its place, in red.
        _write_words(axes, str(error), color="red")


def _write_words(axes: Axes, words: str, color: str = "black") -> None:
    axes.axis("off")
    shown = printable_lines(words)
    # Dollar signs are no formula.
    axes.text(0.5, 0.5, shown, ha="center", va="center", fontsize=8, wrap=True, color=color, parse_math=False)


def _draw_image(axes: Axes, data: bytes) -> None:
    _draw_frame(axes, decode.pixels(data))


def _draw_pair(axes: Axes, members: Members) -> None:
    """The first frame, and arrows to where some of its pixels go."""
    first, _, motion = decode.pair(members)
    _draw_frame(axes, first)
    rows, columns = (np.linspace(0, side - 1, min(side, ARROWS) + 2)[1:-1].astype(int) for side in motion.shape[:2])
    right, down = np.moveaxis(motion[np.ix_(rows, columns)], -1, 0)
    axes.quiver(*np.meshgrid(columns, rows), right, down, color="red", angles="xy")


def _draw_frame(axes: Axes, frame: np.ndarray) -> None:
    axes.axis("off")
    axes.imshow(frame)


def _draw_video(axes: Axes, data: bytes) -> None:
    """A few frames from first to last, two by two, with a light line between them."""
    frames = decode.video(data, _first_to_last)
    bordered = np.full((FRAMES_SHOWN, frames.shape[1] + 1, frames.shape[2] + 1, 3), 255, np.uint8)
    bordered[: len(frames), :-1, :-1] = frames
    upper, lower = (np.concatenate(list(pair), axis=1) for pair in (bordered[:2], bordered[2:]))
    axes.axis("off")
    axes.imshow(np.concatenate([upper, lower]))


def _first_to_last(available: int) -> list[int]:
    frames: list[int] = np.unique(np.linspace(0, available - 1, FRAMES_SHOWN).astype(int)).tolist()
    return frames


def _draw_audio(axes: Axes, data: bytes) -> None:
    """Spectrogram in decibels, seconds across and kHz up."""
    samples, sample_rate = decode.audio(data)
    window = max(16, min(256, len(samples) // 8))
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[:: max(1, window // 4)]
    power = np.abs(np.fft.rfft(pieces * np.hanning(window), axis=1)) ** 2
    decibels = 10 * np.log10(power.T + 1e-10)
    extent = (0, len(padded) / sample_rate, 0, sample_rate / 2000)
    axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, vmin=decibels.max() - 60)
    axes.tick_params(labelsize=6)


def _draw_points(axes: Axes, data: bytes) -> None:
    """The cloud from the front, its depth as colour."""
    cloud = decode.points(data)
    axes.scatter(cloud[:, 0], cloud[:, 1], c=cloud[:, 2], s=2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=6)


def _draw_text(axes: Axes, data: bytes) -> None:
    words = decode.text(data).tobytes().decode(errors="replace")
    _write_words(axes, words if len(words) <= CHARACTERS_SHOWN else f"{words[:CHARACTERS_SHOWN]} ...")


_DRAWERS: Mapping[str, Callable[[Axes, bytes], None]] = MappingProxyType(
    {"audio": _draw_audio, "image": _draw_image, "points": _draw_points, "text": _draw_text, "video": _draw_video}
)
