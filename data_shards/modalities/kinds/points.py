"""Point clouds: npy, npz, PLY and OFF to float32 (num_points, coordinates and features)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from data_shards.files.problems import Problem, at_least
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

NORMAL = ("nx", "ny", "nz")
COLOUR = ("red", "green", "blue")
XYZ = 3
MOST_POINTS = 2_048
"""Of a cloud, where a section is fitted to samples."""


@dataclass(frozen=True)
class PointsConfig(Modality):
    """Point clouds as float32 (num_points, num_dimensions and features)."""

    modality: Literal["points"] = "points"
    num_points: int = 256
    """Points of a cloud: larger clouds are subsampled, smaller ones padded with zeros; meshes are sampled by area."""
    num_dimensions: int = 3
    """Coordinates of a point, the first columns: x, y, z. 0 shows files as they are, and is not for runs."""
    features: tuple[str, ...] = ()
    """Names of what a point has beside its place: of a PLY file the properties, of OFF red, green, blue, alpha, nx, ny,
    nz, s and t. Other files have no names: these are their columns behind the coordinates, all of them, in order."""
    num_features: int = 0
    """The number of features where they have no names here: the first columns behind the coordinates."""
    feature_divisors: tuple[float, ...] = ()
    """Numbers by which the features are divided, such as 255 for each colour of a table. Bytes of PLY and OFF files are
    0 to 1 already."""
    normalize: Literal["none", "centre", "unit_cube"] = "none"
    """centre moves the mean to 0; unit_cube also scales, so that the largest absolute coordinate is 1."""
    scale_jitter: float = 0.0
    """Training multiplies each point by a factor of 1 - x to 1 + x (0.01 in the paper), before it normalizes."""
    rotate: Literal["none", "x", "y", "z", "any"] = "none"
    """Training turns each cloud at random, about an axis or in any way. The features nx, ny, nz turn with it."""
    scale: float = 0.0
    """Training multiplies each cloud by one factor of 1 - x to 1 + x."""
    jitter: float = 0.0
    """Training moves each coordinate at random, by so much as standard deviation."""
    permute: bool = False
    """If true, training shuffles the points of a cloud."""

    usual: ClassVar[tuple[str, ...]] = ("npy", "npz", "ply", "off")
    subsamples: ClassVar[bool] = True

    @property
    def feature_count(self) -> int:
        """Features of a point."""
        return len(self.features) or self.num_features

    @property
    def shape(self) -> tuple[int, ...]:
        """Points and their values."""
        # 0 comes from lenient() alone, whose arrays have the shapes of their files.
        return self.num_points, (self.num_dimensions or 3) + self.feature_count

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {
            "num_points": self.num_points,
            "num_dimensions": self.num_dimensions,
            "num_features": self.feature_count,
        }

    @property
    def too_long(self) -> str:
        """Return how a cloud is larger than the points that are read."""
        return f"larger than {self.num_points} points"

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return points of the cloud in this shape; in training random ones."""
        from data_shards.modalities.transforms import points

        array, length, is_cut = points.fit(found[MAIN].content, self, rng)
        return Prepared(array, length, is_cut=is_cut)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode a cloud and return its shape."""
        from data_shards.modalities.decoding.points import cloud, everything

        return everything(cloud(content)).shape

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return points, coordinates and features: those that all clouds have."""
        import numpy as np

        from data_shards.modalities.decoding.points import cloud, everything

        seen = [cloud(content) for content in contents]
        shapes = [everything(each).shape for each in seen]
        width = min(columns for _, columns in shapes)
        named = [each.features for each in seen]
        # The median: one cloud of a million points would make all others padding.
        sizes: dict[str, Any] = {"num_points": max(1, min(int(np.median([rows for rows, _ in shapes])), MOST_POINTS))}
        if width < XYZ:
            return {**sizes, "num_dimensions": width}
        # Names that all clouds have; without names only the number of columns is known.
        if all(names is not None for names in named):
            features = [name for name in named[0] or () if all(name in (names or ()) for names in named)]
            return sizes | ({"features": features} if features else {}) | {"normalize": "unit_cube"}
        return sizes | ({"num_features": width - XYZ} if width > XYZ else {}) | {"normalize": "unit_cube"}

    @classmethod
    def lenient(cls) -> Self:
        """Return the section that takes clouds as they are."""
        return cls(num_dimensions=0)

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the cloud from the front in its colours, or with its depth as colour."""
        from data_shards.modalities.decoding.points import cloud, everything

        seen = cloud(found[MAIN].content)
        values = everything(seen)
        names = seen.features or ()
        across, up = values[:, 0], values[:, min(1, values.shape[1] - 1)]
        # Clipped: colours of floating point may lie beyond 1, which matplotlib refuses.
        if set(COLOUR) <= set(names):
            axes.scatter(across, up, c=values[:, [3 + names.index(name) for name in COLOUR]].clip(0, 1), s=2)
        else:
            axes.scatter(across, up, c=values[:, min(2, values.shape[1] - 1)], s=2)
        axes.set_aspect("equal", adjustable="datalim")
        axes.tick_params(labelsize=6)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"num_points": self.num_points, "num_dimensions": self.num_dimensions})
        yield from at_least(0, {"num_features": self.num_features, "jitter": self.jitter})
        # A factor of 0 would lose where a point is, and one below 0 mirror it.
        for key in ("scale_jitter", "scale"):
            if not 0 <= getattr(self, key) < 1:
                yield key, f"must be from 0 to less than 1, got {getattr(self, key)}"
        yield from self._feature_problems()
        yield from self._rotation_problems()

    def _feature_problems(self) -> Iterator[Problem]:
        if len(set(self.features)) < len(self.features):
            yield "features", f"names one twice: {', '.join(self.features)}; leave one out"
        if self.features and self.num_features not in (0, len(self.features)):
            yield "num_features", f"is {self.num_features}, and features names {len(self.features)}; leave it out"
        if self.feature_divisors and len(self.feature_divisors) != self.feature_count:
            yield (
                "feature_divisors",
                f"needs {self.feature_count} numbers, one a feature, got {len(self.feature_divisors)}",
            )
        if 0 in self.feature_divisors:
            yield "feature_divisors", f"divides by 0: {list(self.feature_divisors)}; write 1 for a feature that stays"

    def _rotation_problems(self) -> Iterator[Problem]:
        if self.rotate == "none":
            return
        if self.num_dimensions != 3 and (self.rotate != "any" or self.num_dimensions < 2):
            yield "rotate", f"{self.rotate} is for 3 coordinates, got num_dimensions={self.num_dimensions}"
        # Normals must turn with the cloud, and only names say which columns they are.
        if self.feature_count and not self.features:
            yield "rotate", "turns the features nx, ny and nz; name the features instead of counting them"
        normals = [name for name in NORMAL if name in self.features]
        if normals and (len(normals) < 3 or self.num_dimensions != 3):
            yield "rotate", f"turns normals of 3 coordinates, got {', '.join(normals)}; name nx, ny and nz, or none"
