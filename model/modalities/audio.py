"""Sound: patches of samples, or of the frames of a spectrogram, or the cells of one."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.config.grids import PositionsConfig, Problems
from model.modalities.input import Input, coarsest, cuts, few_bands

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AudioInput(Input):
    """Samples (S,) or frames of a spectrogram (T, F), cut into patches along time, and along frequency if asked for."""

    modality: Literal["audio"] = "audio"
    num_samples: int = 0
    """Samples (or frames) of a recording; 0 as in the data."""
    num_channels: int = 0
    """Values of a sample, such as channels or the bins of a spectrogram's frame; 0 as in the data, or 1 where a network
    stands alone."""
    # As in the second paper's Kinetics network; the first paper's AudioSet networks have 128.
    patch: int = 16
    """Samples (or frames) that make one token."""
    patch_bins: int = 0
    """Bins of a spectrogram that make one token: 1 with patch=1 makes a token of every cell; 0 takes all of a frame.
    Of sound with several channels a bin has a value of each, and counts as so many."""
    positions: PositionsConfig = field(default_factory=PositionsConfig)
    """Positions in time, or on (time, frequency) where patch_bins is set."""

    sizes: ClassVar[tuple[str, ...]] = ("num_samples",)
    optional: ClassVar[tuple[str, ...]] = ("num_channels", "patch_bins")
    value_range: ClassVar[float] = 2.0

    @property
    def is_separable(self) -> bool:  # type: ignore[override]  # it depends on the fields here
        """Whether tokens lie on (time, frequency): of sound on one axis nothing is won."""
        return bool(self.patch_bins)

    @property
    def channels(self) -> int:
        """Values of a sample."""
        return self.num_channels or 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples, and channels if there are several."""
        return (self.num_samples,) if self.channels == 1 else (self.num_samples, self.channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches along time, and along frequency."""
        # Exact: joint_problems() refuses a recording that patches do not divide.
        frames = self.num_samples // self.patch
        return (frames, self.channels // self.patch_bins) if self.patch_bins else (frames,)

    @property
    def entries_per_row(self) -> int:
        """Samples of a patch."""
        return self.patch

    @property
    def content_width(self) -> int:
        """Values of a patch."""
        return self.patch * (self.patch_bins or self.channels)

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.values import AudioAdapter

        return AudioAdapter(self)

    def fitted(self) -> dict[str, Any]:
        """Return the samples of a patch, and bands."""
        # Powers of two: sizes of recordings are usually multiples of them.
        patch = coarsest(((1 << exponent,) for exponent in range(4, 13)), (self.num_samples,))[0]
        return {"patch": patch, "positions": few_bands((self.num_samples // patch,))}

    def joint_problems(self) -> Problems:
        """Yield (key, sentence) of what does not go together."""
        yield from super().joint_problems()
        yield from cuts(num_samples=(self.num_samples, self.patch))
        if self.patch_bins:
            yield from cuts(num_channels=(self.channels, self.patch_bins))
