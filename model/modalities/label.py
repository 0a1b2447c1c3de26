"""A class as input: one token, one-hot."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from model.modalities.input import Input, axes

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class LabelInput(Input):
    """A class as input: one token, one-hot; one that is not known is the mask token, or zeros where there is none."""

    modality: Literal["label"] = "label"
    # Those of Kinetics-700, whose autoencoder is the one network of the papers that reads labels.
    num_classes: int = 700
    """Number of classes."""

    dtype: ClassVar[str] = "int64"
    is_whole: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def grid(self) -> tuple[int, ...]:
        """A single token."""
        return (1,)

    @property
    def content_width(self) -> int:
        """One channel a class."""
        return self.num_classes

    @property
    def ids(self) -> tuple[int, int] | None:
        """The classes, and -1 for none."""
        return -1, self.num_classes

    def unknown(self, value: "Tensor") -> "Tensor | None":
        """Return which labels are negative."""
        return (value < 0)[:, None]

    def adapter(self) -> "nn.Module":
        """Return the module that makes tokens."""
        from model.modalities.adapters.values import LabelAdapter

        return LabelAdapter(self)

    def meaning(self, name: str) -> str:  # noqa: ARG002 - of other modalities
        """Return what the values of the input are."""
        return f"int64 ({axes(self.shape)}), classes below {self.num_classes}, or -1 for none"
