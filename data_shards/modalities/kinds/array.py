"""Arrays of numbers with any number of axes, such as EEG, fields or features: npy, npz and safetensors to float32."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from data_shards.files.problems import Problem
from data_shards.format import members as names
from data_shards.modalities.modality import COORDINATES, MAIN, Content, Members, Modality, Prepared

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

CHANNEL = "channel"
MOST_ROWS = 2_048
"""Of an array, where a section is fitted to samples."""


@dataclass(frozen=True)
class ArrayConfig(Modality):
    """Arrays as float32 of the shape that they have in their files."""

    modality: Literal["array"] = "array"
    shape: tuple[int, ...] = ()
    """Length of each axis. Along the first one a longer array is cut (training: anywhere) and a shorter one padded with
    zeros; the others must be as long as this. A run needs it; `data show` accepts any array without it."""
    axes: tuple[str, ...] = ()
    """Names of the axes; the one named channel has the values of a cell. Empty: the last axis has them."""
    nan: Literal["refuse", "zero", "keep"] = "refuse"
    """Numbers that are not finite make the sample bad, or become zeros, or stay NaN: of an input that the network does
    not read but answers for, these are the values that nobody knows."""
    standardize: bool = False
    """If true, each channel of a sample is brought to mean 0 and standard deviation 1."""

    coordinates: str = ""
    """The member with the coordinates of the array's cells, (length of each axis but channels, num_axes), such as
    latitude and longitude, or a time stamp; empty where a cell has its place on the axes."""
    num_axes: int = 0
    """Coordinates of a cell; needed with `coordinates`. With 1 their last axis may be left out."""
    coordinates_min: tuple[float, ...] = ()
    """The least value on each axis, which becomes -1, such as [-90, -180]; empty takes coordinates as they are."""
    coordinates_max: tuple[float, ...] = ()
    """The greatest value on each axis, which becomes 1, such as [90, 180]."""

    usual: ClassVar[tuple[str, ...]] = ("npy", "npz", "safetensors")

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"shape": tuple(self.shape), "axes": tuple(self.axes), "num_axes": self.num_axes}

    @property
    def has_gaps(self) -> bool:
        """True where NaN stands for values that nobody knows."""
        return self.nan == "keep"

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The values, and their coordinates."""
        return super().roles | ({COORDINATES: (self.coordinates,)} if self.coordinates else {})

    @property
    def places(self) -> tuple[int, ...] | None:
        """The cells, and the coordinates of one."""
        return (*self._cells(tuple(self.shape)), self.num_axes) if self.coordinates else None

    @property
    def too_long(self) -> str:
        """Return how an array is longer than the entries of its first axis that are read."""
        along = f" along the axis {self.axes[0]}" if self.axes else ""
        return f"longer than {self.shape[0]}{along}"

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the array in this shape."""
        import numpy as np

        from data_shards.modalities.decoding.numbers import finite

        values = finite(_decoded(found[MAIN].content), self.nan)
        # `data show` has no section of a run: the file's own shape is then the one that is wanted.
        shape = tuple(self.shape) or values.shape
        if values.ndim != len(shape) or values.shape[1:] != shape[1:]:
            wanted = ", ".join(["any", *map(str, shape[1:])])
            raise ValueError(f"array of shape {values.shape}; expected ({wanted})")
        length = min(len(values), shape[0])
        spare = len(values) - length
        # Training cuts anywhere, evaluation in the middle: the same part each time.
        start = int(rng.integers(spare, endpoint=True)) if rng is not None and spare else spare // 2
        part = values[start : start + length]
        # Zeros behind what is there; the length says which entries count.
        whole = np.zeros(shape, np.float32)
        whole[:length] = self._standardized(part) if self.standardize else part
        if not self.coordinates:
            return Prepared(whole, length, is_cut=spare > 0)
        places = np.zeros((*self._cells(shape), self.num_axes), np.float32)
        places[:length] = self._places(found, self._cells(values.shape))[start : start + length]
        return Prepared(whole, length, coordinates=places, is_cut=spare > 0)

    def _places(self, found: Members, cells: tuple[int, ...]) -> "NDArray[np.float64]":
        """Return the coordinates of all cells of a sample, scaled in double precision: seconds since 1970 need it."""
        import numpy as np

        from data_shards.modalities.decoding.numbers import numbers

        if COORDINATES not in found:
            raise ValueError(f"array without its coordinates, .{self.coordinates}")
        places = np.asarray(found[COORDINATES].decoded(numbers), np.float64)
        expected = (*cells, self.num_axes)
        if places.shape != expected and (self.num_axes != 1 or places.shape != cells):
            raise ValueError(f"coordinates of shape {places.shape}; expected {expected}, one row a cell of the array")
        # Not as with values, of which some may be unknown: a value at no place can be neither read nor asked.
        if not np.isfinite(places).all():
            raise ValueError("coordinates that are NaN or infinite")
        places = places.reshape(expected)
        if not self.coordinates_min:
            return places
        low, high = np.array(self.coordinates_min), np.array(self.coordinates_max)
        scaled: NDArray[np.float64] = 2 * (places - low) / (high - low) - 1
        return scaled

    @property
    def _channel(self) -> int | None:
        """The axis of the values of a cell."""
        if not self.axes:
            return -1
        return self.axes.index(CHANNEL) if CHANNEL in self.axes else None

    def _cells(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self._channel is None:
            return shape
        return tuple(length for axis, length in enumerate(shape) if axis != self._channel % len(shape))

    def _standardized(self, values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        channel = None if self._channel is None else self._channel % values.ndim
        others = tuple(axis for axis in range(values.ndim) if axis != channel)
        # A channel that never changes is divided by 1: it becomes 0 and not NaN.
        deviation = values.std(axis=others, keepdims=True)
        out: NDArray[np.float32] = (values - values.mean(axis=others, keepdims=True)) / (deviation + (deviation == 0))
        return out

    def stand_in(self, members: Mapping[str, Content]) -> tuple[str, bytes] | None:
        """Return values that nobody knows at the places of a sample, where it brings those alone."""
        import io

        import numpy as np

        from data_shards.modalities.decoding.numbers import numbers

        pattern, there = (
            self.patterns[0],
            [each for each, field in names.fitting((self.coordinates,), members) if not field],
        )
        # A pattern, or an array of an archive, is no name under which a file could stand in.
        if not self.has_gaps or not self.coordinates or not there or "*" in pattern or "/" in pattern:
            return None
        # Of one axis more than what is known of a place; what does not fit is refused when it is read.
        cells = np.asarray(numbers(members[there[0]])).shape[: len(self._cells(tuple(self.shape)))]
        channels = () if self._channel is None else (self.shape[self._channel],)
        content = io.BytesIO()
        np.save(content, np.full((*cells, *channels), np.nan, np.float32))
        return pattern, content.getvalue()

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return the length of each axis; ValueError where the samples differ on another axis than the first."""
        import numpy as np

        from data_shards.modalities.fitting import side

        seen = [_decoded(content) for content in contents]
        shapes = {values.shape[1:] for values in seen}
        if not all(values.ndim for values in seen):
            raise ValueError("single numbers, which are no arrays; make them values of the samples")
        if len(shapes) > 1:
            raise ValueError(f"arrays of {len(shapes)} shapes, such as {seen[0].shape} and {seen[-1].shape}")
        rest = list(shapes.pop())
        sizes: dict[str, Any] = {"shape": [side([len(values) for values in seen], MOST_ROWS), *rest]}
        # A series of single numbers: each is a cell of one channel.
        if not rest:
            sizes["axes"] = ["place"]
        if not any(np.isfinite(values).any() for values in seen):
            raise ValueError("not one finite value")
        if not all(np.isfinite(values).all() for values in seen):
            sizes["nan"] = "zero"
        # The unit is not known. Of a single number nothing but 0 would be left.
        return sizes | ({"standardize": True} if all(values.size > 1 for values in seen) else {})

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode an array and return its shape."""
        return _decoded(content).shape

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw few channels as curves, else a heat map."""
        from data_shards.modalities.drawing import draw_values

        draw_values(axes, _decoded(found[MAIN].content))

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        if not self.shape or min(self.shape) < 1:
            yield "shape", f"needs at least one axis and no empty one, got {list(self.shape)}"
        if self.axes and (len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes)):
            yield "axes", f"needs a name for each of the {len(self.shape)} axes, each another, got {list(self.axes)}"
        if self.has_gaps and self.standardize:
            yield "standardize", "takes the mean of all values, and nan=keep has some that nobody knows; leave one out"
        if self.coordinates:
            yield from self._coordinate_problems()
        else:
            for key in ("num_axes", "coordinates_min", "coordinates_max"):
                if getattr(self, key):
                    yield key, f"is of given coordinates, got {getattr(self, key)}; set coordinates, or leave this out"

    def _coordinate_problems(self) -> Iterator[Problem]:
        if sentence := names.pattern_problem(self.coordinates):
            yield "coordinates", sentence
        if self.num_axes < 1:
            yield "num_axes", f"must be at least 1 with coordinates, got {self.num_axes}; set it to how many a cell has"
        # The first axis is cut and padded, and the coordinates with it, cell by cell.
        if self.shape and self._channel is not None and self._channel % len(self.shape) == 0:
            yield "coordinates", "are of the first axis, which is that of the channels here; name another axis channel"
        low, high = self.coordinates_min, self.coordinates_max
        if not (low or high):
            return
        if not len(low) == len(high) == self.num_axes or not all(a < b < inf for a, b in zip(low, high, strict=False)):
            yield (
                "coordinates_min",
                f"and coordinates_max need {self.num_axes} numbers, each below its greatest, got {list(low)} and "
                f"{list(high)}",
            )


def _decoded(content: Content) -> "NDArray[np.float32]":
    import numpy as np

    from data_shards.modalities.decoding.numbers import numbers

    # A number that is too large for float32 becomes infinite, and is dealt with as any that is not finite.
    with np.errstate(over="ignore"):
        return np.asarray(numbers(content), np.float32)
