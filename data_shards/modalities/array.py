"""Arrays of numbers with any number of axes, such as EEG, fields or features: npy, npz and safetensors to float32."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from data_shards.files.problems import Problem
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

CHANNEL = "channel"
MAX_DRAWN = 8
"""Channels that a person is shown."""


@dataclass(frozen=True)
class ArrayConfig(Modality):
    """Arrays as float32 of the shape that they have in their files."""

    modality: Literal["array"] = "array"
    shape: tuple[int, ...] = ()
    """Length of each axis. Along the first one a longer array is cut (training: anywhere) and a shorter one padded with
    zeros; the others must be as long as this. A run needs it; `data show` accepts any array without it."""
    axes: tuple[str, ...] = ()
    """Names of the axes; the one named channel has the values of a cell. Empty: the last axis has them."""
    nan: Literal["refuse", "zero"] = "refuse"
    """Numbers that are not finite make the sample bad, or become zeros."""
    standardize: bool = False
    """If true, each channel of a sample is brought to mean 0 and standard deviation 1."""

    usual: ClassVar[tuple[str, ...]] = ("npy", "npz", "safetensors")

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"shape": tuple(self.shape), "axes": tuple(self.axes)}

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the array in this shape."""
        import numpy as np

        from data_shards.modalities.decoding.numbers import finite

        values = finite(_decoded(found[MAIN].content), self.nan)
        shape = tuple(self.shape) or values.shape
        if values.ndim != len(shape) or values.shape[1:] != shape[1:]:
            wanted = ", ".join(["any", *map(str, shape[1:])])
            raise ValueError(f"array of shape {values.shape}; expected ({wanted})")
        length = min(len(values), shape[0])
        spare = len(values) - length
        start = int(rng.integers(spare, endpoint=True)) if rng is not None and spare else spare // 2
        part = values[start : start + length]
        whole = np.zeros(shape, np.float32)
        whole[:length] = self._standardized(part) if self.standardize else part
        return Prepared(whole, length)

    def _standardized(self, values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        channel = self.axes.index(CHANNEL) if CHANNEL in self.axes else values.ndim - 1
        has_channels = not self.axes or CHANNEL in self.axes
        others = tuple(axis for axis in range(values.ndim) if axis != channel or not has_channels)
        # A channel that never changes is divided by 1: it becomes 0 and not NaN.
        deviation = values.std(axis=others, keepdims=True)
        out: NDArray[np.float32] = (values - values.mean(axis=others, keepdims=True)) / (deviation + (deviation == 0))
        return out

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode an array and return its shape."""
        return _decoded(content).shape

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the first channels as curves, or as a picture where there are more axes."""
        values = _decoded(found[MAIN].content)
        if values.ndim <= 2:
            axes.plot(values.reshape(len(values), -1)[:, :MAX_DRAWN], linewidth=0.5)
        else:
            axes.imshow(values.reshape(*values.shape[:2], -1)[..., 0], aspect="auto")
        axes.tick_params(labelsize=6)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        if not self.shape or min(self.shape) < 1:
            yield "shape", f"needs at least one axis and no empty one, got {list(self.shape)}"
        if self.axes and (len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes)):
            yield "axes", f"needs a name for each of the {len(self.shape)} axes, each another, got {list(self.axes)}"


def _decoded(content: Content) -> "NDArray[np.float32]":
    import numpy as np

    from data_shards.modalities.decoding.numbers import numbers

    # A number that is too large for float32 becomes infinite, and is dealt with as any that is not finite.
    with np.errstate(over="ignore"):
        return np.asarray(numbers(content), np.float32)
