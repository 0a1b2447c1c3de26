"""Words in the place of a picture."""

from typing import TYPE_CHECKING

from data_shards.files.display import printable_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_words(axes: "Axes", words: str, color: str = "black") -> None:
    """Write words into the middle of axes without a frame."""
    axes.axis("off")
    # Dollar signs are no formula.
    axes.text(
        0.5, 0.5, printable_lines(words), ha="center", va="center", fontsize=8, wrap=True, color=color, parse_math=False
    )
