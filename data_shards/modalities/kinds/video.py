"""Video: MP4, QuickTime, Matroska, WebM and AVI to uint8 (num_frames, height, width, 3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, Self

from data_shards.files.problems import Problem, at_least, probabilities
from data_shards.modalities.modality import MAIN, Content, Members, Modality, Prepared, nested
from data_shards.modalities.transform_config import ColourConfig, CropConfig, centre_crop_problems

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# ruff: noqa: UP045 - OmegaConf reads Optional[X] best
FRAMES_SHOWN = 4
MOST_FRAMES, MOST_PIXELS = 16, 112
"""Of a clip and of a side, where a section is fitted to samples."""


@dataclass(frozen=True)
class VideoConfig(Modality):
    """Clips as uint8 (num_frames, height, width, 3)."""

    modality: Literal["video"] = "video"
    num_frames: int = 16
    """Frames of a clip."""
    height: int = 28
    """Rows of pixels after resizing."""
    width: int = 28
    """Columns of pixels after resizing."""
    frame_step: int = 0
    """0 spreads the frames over the video; n takes every nth frame, from the middle, in training from anywhere."""
    resize: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear"
    """Pillow's filter of that name, with antialiasing where the frame shrinks."""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """How other aspect ratios are fitted to this shape, in training too. crop: the largest centred part of this ratio,
    so the ends of a wide frame are never read. stretch: all of it, distorted. pad: all of it, black beside it."""
    centre_crop: float = 1.0
    """Part of the shorter side that fit=crop keeps where nothing is random."""
    crop: Optional[CropConfig] = None
    """Set to train on random parts of the frames, the same in all frames of a clip."""
    flip: bool = False
    """Training mirrors every second clip."""
    colour: Optional[ColourConfig] = None
    """Set to train on clips with random brightness, contrast and saturation."""
    place: Optional[float] = None
    """With frame_step: where a longer video is read, from 0, its beginning, to 1, its end; left out, as data.clips
    says, or in the middle, in training anywhere."""

    usual: ClassVar[tuple[str, ...]] = ("mp4", "webm", "mkv", "avi", "mov")
    # Bytes up to the device, which makes numbers of them: float32 would be four times as much to copy.
    dtype: ClassVar[str] = "uint8"

    @property
    def has_time(self) -> bool:  # type: ignore[override]  # it depends on the step here
        """True unless the frames are spread over the whole video."""
        # Frames from all over the video leave no other part of it to read.
        return self.frame_step > 0

    def at(self, place: float) -> Self:
        """Return the section that reads there, unless it says where itself."""
        return self if self.place is not None else replace(self, place=place)

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns and channels."""
        return self.num_frames, self.height, self.width, 3

    @property
    def sizes(self) -> dict[str, Any]:
        """The names that a network's input has for these."""
        return {"num_frames": self.num_frames, "height": self.height, "width": self.width, "num_channels": 3}

    @property
    def subsamples(self) -> bool:  # type: ignore[override]  # it depends on the step here
        """True where the frames are spread over the whole video."""
        return not self.frame_step

    @property
    def too_long(self) -> str:
        """Return how a video is longer than the frames that are read."""
        step = f" at a step of {self.frame_step}" if self.frame_step > 1 else ""
        return f"longer than {self.num_frames} frames{step}"

    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return frames of the clip in this shape; in training varied at random."""
        from data_shards.modalities.transforms import video

        array, length, is_cut = video.fit(found[MAIN].content, self, rng)
        return Prepared(array, length, is_cut=is_cut)

    def file(self, values: "np.ndarray") -> tuple[str, bytes]:
        """Return an animation, WebP without loss, of frames with values in [0, 1]."""
        from data_shards.modalities.encoding import animation

        return "webp", animation(values)

    @staticmethod
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:  # noqa: ARG004 - there is one role
        """Decode all frames of a clip and return its shape."""
        from data_shards.modalities.decoding import video

        return video.shape(content)

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:
        """Return frames, rows and columns."""
        from data_shards.modalities.decoding import video
        from data_shards.modalities.fitting import side

        frames, rows, columns, _ = zip(*map(video.shape, contents), strict=True)
        sides = {"height": side(rows, MOST_PIXELS), "width": side(columns, MOST_PIXELS)}
        return {"num_frames": side(frames, MOST_FRAMES), **sides}

    @staticmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw a few frames from first to last, two by two, with a light line between them."""
        import numpy as np

        from data_shards.modalities.decoding.video import video
        from data_shards.modalities.drawing import hide_frame

        frames = video(found[MAIN].content, _first_to_last)
        bordered = np.full((FRAMES_SHOWN, frames.shape[1] + 1, frames.shape[2] + 1, 3), 255, np.uint8)
        bordered[: len(frames), :-1, :-1] = frames
        upper, lower = (np.concatenate(list(pair), axis=1) for pair in (bordered[:2], bordered[2:]))
        hide_frame(axes)
        axes.imshow(np.concatenate([upper, lower]))

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from super().problems()
        yield from probabilities({"place": self.place or 0.0})
        if self.place is not None and not self.frame_step:
            yield "place", f"is for frame_step=1 or more, got {self.place}; set that, or leave this out"
        yield from at_least(1, {"num_frames": self.num_frames, "height": self.height, "width": self.width})
        yield from at_least(0, {"frame_step": self.frame_step})
        yield from centre_crop_problems(self.centre_crop, self.fit)
        yield from nested(crop=self.crop, colour=self.colour)


def _first_to_last(available: int) -> list[int]:
    import numpy as np

    # A clip of one frame gives it once, and not four times.
    frames: list[int] = np.unique(np.linspace(0, available - 1, FRAMES_SHOWN).astype(int)).tolist()
    return frames
