"""Pairs of frames as uint8 (2, height, width, 3), and the motion between them, which is what the network is to say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, Self

from data_shards.files.problems import Problem, at_least, probabilities
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import ColourConfig, EraseConfig, ScaleConfig

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best
SECOND, MOTION = "second", "motion"
FRAMES = ("png", "jpg", "jpeg", "webp", "bmp", "ppm")
MOST_PIXELS: Mapping[str, int] = MappingProxyType({"height": 192, "width": 256})
"""Of a side, where a section is fitted to samples."""
ARROWS = 8
"""Number of arrows along each side of a frame that is drawn."""


@dataclass(frozen=True)
class FlowConfig(Modality):
    """Pairs of frames as uint8 (2, height, width, 3), and the motion between them. `members` is the first frame."""

    modality: Literal["flow"] = "flow"
    # The names under which a table's columns first and second come into a shard.
    second: str | tuple[str, ...] = tuple(f"second.{suffix}" for suffix in FRAMES)
    """Member with the second frame."""
    motion: str | tuple[str, ...] = ("flo", "motion.png")
    """Member with the motion from the first frame to the second: .flo, or KITTI's PNG of 16 bits."""
    # 368 x 496 is what DeepMind's released network reads.
    height: int = 368
    """Rows of pixels that training cuts from a pair, anywhere; only `scale` resizes, since motion is in pixels."""
    width: int = 496
    """Columns of pixels that training cuts from a pair."""
    needs_motion: bool = True
    """If true, a pair without its motion is a bad sample. `perceiver predict` answers such pairs too."""
    flip: bool = False
    """Training mirrors every second pair."""
    upside_down: float = 0.0
    """The probability that training mirrors a pair from top to bottom."""
    reverse: float = 0.0
    """The probability that training takes a pair from its second frame to its first. Its motion is turned round where
    one pixel leads, and unknown elsewhere."""
    scale: Optional[ScaleConfig] = None
    """Set to train on pairs of other sizes, with their motion."""
    colour: Optional[ColourConfig] = None
    """Set to train on pairs with random brightness, contrast, saturation and hue."""
    unequal_colour: float = 0.0
    """The probability that the two frames of a pair draw different colours."""
    erase: Optional[EraseConfig] = None
    """Set to train on pairs of which something covers parts of the second frame."""
    test_height: int = 0
    """Rows that evaluation cuts about the centre, judged in overlapping tiles of height x width; 0: height."""
    test_width: int = 0
    """Columns that evaluation cuts about the centre; 0: width."""

    usual: ClassVar[tuple[str, ...]] = tuple(f"first.{suffix}" for suffix in FRAMES)
    dtype: ClassVar[str] = "uint8"

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The first frame, the second, and the motion."""
        others = {SECOND: self.second, MOTION: self.motion}
        as_tuples = {role: (of,) if isinstance(of, str) else tuple(of) for role, of in others.items()}
        return {MAIN: self.patterns, **as_tuples}

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns and channels."""
        return 2, self.height, self.width, 3

    @property
    def target(self) -> tuple[tuple[int, ...], str] | None:
        """Motion to the right and down in pixels, NaN where it is not known."""
        return (self.height, self.width, 2), "float32"

    @property
    def asks(self) -> tuple[str, str] | None:
        """The motion between the frames."""
        return "motion", ""

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"height": self.height, "width": self.width, "num_channels": 3}

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return a cut of the frames and of the motion: about the centre, in training anywhere."""
        from data_shards.modalities.transforms import flow

        frames, motion = flow.fit(found, self, rng)
        return Prepared(frames, len(frames), motion)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:
        """Decode a frame or the motion and return its shape."""
        from data_shards.modalities.decoding.flow import motion
        from data_shards.modalities.decoding.image import pixels

        return motion(content).shape if role == MOTION else pixels(content).shape

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return rows and columns that every pair has: nothing is resized."""
        from data_shards.modalities.decoding.image import pixels
        from data_shards.modalities.fitting import side

        shapes = [pixels(content).shape for content in contents]
        # The smallest pair decides, since nothing is enlarged.
        least = {"height": min(rows for rows, _, _ in shapes), "width": min(columns for _, columns, _ in shapes)}
        return {key: side([length], MOST_PIXELS[key]) for key, length in least.items()}

    @classmethod
    def lenient(cls) -> Self:
        """Return the section that takes pairs of any size."""
        # Every pair has a pixel, and what is drawn are the members themselves.
        return cls(height=1, width=1)

    def of_evaluation(self) -> Self:
        """Return the section with the size of evaluation."""
        return replace(self, height=self.test_height or self.height, width=self.test_width or self.width)

    def of_prediction(self) -> Self:
        """Return the section that reads frames without their motion too."""
        return replace(self.of_evaluation(), needs_motion=False)

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the first frame, and arrows to where some of its pixels go."""
        import numpy as np

        from data_shards.modalities.decoding.flow import pair
        from data_shards.modalities.drawing import hide_frame

        first, _, motion = pair(found)
        hide_frame(axes)
        axes.imshow(first)
        # Not at the border, where an arrow would leave the picture.
        rows, columns = (np.linspace(0, side - 1, min(side, ARROWS) + 2)[1:-1].astype(int) for side in motion.shape[:2])
        right, down = np.moveaxis(motion[np.ix_(rows, columns)], -1, 0)
        axes.quiver(*np.meshgrid(columns, rows), right, down, color="red", angles="xy")

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from at_least(1, {"height": self.height, "width": self.width})
        yield from probabilities(
            {"upside_down": self.upside_down, "reverse": self.reverse, "unequal_colour": self.unequal_colour}
        )
        yield from nested(scale=self.scale, colour=self.colour, erase=self.erase)
        if self.unequal_colour and self.colour is None:
            yield "unequal_colour", "is for pairs whose colours are drawn; set colour too, or leave it out"
        if not self.motion:
            yield "motion", "names no member; name the one with the motion, such as flo"
        # Tiles have the size of training: smaller frames would hold none.
        for key, side in (("test_height", self.height), ("test_width", self.width)):
            if getattr(self, key) and getattr(self, key) < side:
                yield key, f"must be at least {side}, as in training, or 0, got {getattr(self, key)}"
