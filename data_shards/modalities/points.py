"""Point clouds: npy, npz, PLY and OFF to float32 (num_points, 3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from data_shards.files.problems import Problem, at_least
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class PointsConfig(Modality):
    """Point clouds as float32 (num_points, num_channels)."""

    modality: Literal["points"] = "points"
    num_points: int = 256
    """Points of a cloud: larger clouds are subsampled, smaller ones padded with zeros; meshes are sampled by area."""
    num_channels: int = 3
    """Values of a point: x, y, z."""
    normalize: Literal["none", "centre", "unit_cube"] = "none"
    """centre moves the mean to 0; unit_cube also scales, so that the largest absolute coordinate is 1."""
    scale_jitter: float = 0.0
    """Training multiplies each point by a factor of 1 - x to 1 + x (0.01 in the paper), before it normalizes."""

    usual: ClassVar[tuple[str, ...]] = ("npy", "npz", "ply", "off")

    @property
    def shape(self) -> tuple[int, ...]:
        """Points and their values."""
        return self.num_points, self.num_channels

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"num_points": self.num_points, "num_channels": self.num_channels}

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return points of the cloud in this shape; in training random ones."""
        from data_shards.modalities.transforms import points

        return Prepared(*points.fit(found[MAIN].content, self, rng))

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode a cloud and return its shape."""
        from data_shards.modalities.decoding.points import points

        return points(content).shape

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the cloud from the front, its depth as colour."""
        from data_shards.modalities.decoding.points import points

        cloud = points(found[MAIN].content)
        axes.scatter(cloud[:, 0], cloud[:, 1], c=cloud[:, 2], s=2)
        axes.set_aspect("equal", adjustable="datalim")
        axes.tick_params(labelsize=6)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"num_points": self.num_points})
        if not 0 <= self.scale_jitter < 1:
            yield "scale_jitter", f"must be from 0 to less than 1, got {self.scale_jitter}"
        if self.num_channels != 3:
            yield "num_channels", f"must be 3 (x, y, z), got {self.num_channels}"
