"""What every drawing for a person needs: words in the place of a picture, and pictures of any number of channels."""

from typing import TYPE_CHECKING

from data_shards.files.display import printable_lines

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


MAX_CURVES = 8
"""Channels that a person can tell apart as curves."""


def hide_frame(axes: "Axes") -> None:
    """Draw no frame around axes, and no ticks; Matplotlib would place the ticks, which takes longer than a picture."""
    axes.set(frame_on=False, xticks=[], yticks=[])
    axes.axis("off")


def write_words(axes: "Axes", words: str, color: str = "black") -> None:
    """Write words into the middle of axes without a frame."""
    hide_frame(axes)
    # Dollar signs are no formula.
    axes.text(
        0.5, 0.5, printable_lines(words), ha="center", va="center", fontsize=8, wrap=True, color=color, parse_math=False
    )


def draw_picture(axes: "Axes", values: "np.ndarray", *, is_unit: bool = False) -> None:
    """Draw values (H, W, channels): 1 and 2 as grey, 3 and more as red, green and blue, with a note of those left out.

    Bytes are drawn as they are, and so is what lies in [0, 1] where `is_unit` says so; of other numbers the lowest is
    black and the highest white.
    """
    channels = values.shape[2]
    shown = 1 if channels < 3 else 3
    hide_frame(axes)
    # With fixed ends: Matplotlib would stretch each grey picture to black and white of its own.
    axes.imshow(_bright(values[..., :shown], is_unit=is_unit), cmap="gray", vmin=0, vmax=1)
    if channels != shown:
        note = f"{'1' if shown == 1 else '1 to 3'} of {channels}"
        axes.text(0.02, 0.02, note, transform=axes.transAxes, fontsize=6, color="red")


def draw_values(axes: "Axes", values: "np.ndarray") -> None:
    """Draw an array of any number of axes: few channels as curves, others as a heat map of the first two axes."""
    if values.ndim <= 2 and values.size <= MAX_CURVES * len(values):
        axes.plot(values.reshape(len(values), -1), linewidth=0.5)
    else:
        axes.imshow(values.reshape(*values.shape[:2], -1)[..., 0], aspect="auto")
    axes.tick_params(labelsize=6)
    # More numbers have no room in a cell, and are most of the time that it takes.
    axes.locator_params(nbins=3)


def _bright(values: "np.ndarray", *, is_unit: bool) -> "np.ndarray":
    import numpy as np

    if values.dtype == np.uint8 or is_unit:
        out: np.ndarray = (values / (255 if values.dtype == np.uint8 else 1)).clip(0, 1)
        return out
    # By what the picture holds: a depth map and a satellite's bands have no brightest value of their own.
    numbers = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    if np.isnan(numbers).all():
        return np.zeros(values.shape)
    lowest, highest = np.nanmin(numbers), np.nanmax(numbers)
    return np.asarray(np.nan_to_num((numbers - lowest) / ((highest - lowest) or 1)))
