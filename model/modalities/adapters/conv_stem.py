"""The convolution that may come before tokens, and its batch norm over a global batch that is computed in parts.

    before the micro-batches    pixels -> sums of what lies under the kernel, and of its products -> over all ranks
    in each micro-batch         mean of the output     = weights . mean under the kernel
                                variance of the output = weights . covariance under the kernel . weights
    after the last              the running statistics move, unless the step is skipped

B samples, H rows, W columns, c channels of a pixel, R rows and S columns with the padding
h rows, w columns and C channels of the result
K values under the kernel and a 1; sums over all its places hold their number, their sum and their products
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from model.modalities.pixel_range import STEM_WIDTH
from model.parameters import Convolution

# The stem of Perceiver IO's configuration with a convolution, which is ResNet's.
SIDE, STRIDE, POOL = 7, 2, 3
MOMENTUM = 0.1  # DeepMind's decay of 0.9
Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks. Collective."""


def same_padding(length: int, side: int, stride: int) -> tuple[int, int]:
    """Return the padding of TensorFlow's and JAX's SAME, which is larger after than before."""
    # 2 and 3 pixels for a kernel of 7 at 224. PyTorch's padding=3 moves the grid by a pixel, and transformers', without
    # padding of the pool, gives 55 x 55 features in place of 56 x 56.
    total = max((-(-length // stride) - 1) * stride + side - length, 0)
    return total // 2, total - total // 2


class AveragedNorm(nn.BatchNorm2d):
    """The scale, the offset and the running statistics of a batch norm, which the stem applies itself."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AveragedNorm":
        # A network that is cast to half precision keeps its averages over steps in float32.
        kept = {name: getattr(self, name) for name in ("running_mean", "running_var")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own has no types
        for name, before in kept.items():
            if getattr(self, name).dtype.itemsize < before.dtype.itemsize:
                setattr(self, name, before.to(getattr(self, name).device))
        return self

    def average(self, count: Tensor, mean_C: Tensor, variance_C: Tensor, is_kept: Tensor | bool = True) -> None:
        """Move the running statistics towards those of a batch with so many values, as nn.BatchNorm2d does.

        Where the batch is not kept, which the device alone may know, nothing moves.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        # Nothing moves where no sample has the modality.
        share = MOMENTUM * (count > 0)
        unbiased_C = variance_C * count / (count - 1).clamp(min=1)
        kept = torch.full((), is_kept, device=count.device) if isinstance(is_kept, bool) else is_kept
        for average_C, new_C in ((self.running_mean, mean_C), (self.running_var, unbiased_C)):
            moved_C = torch.lerp(average_C, new_C.to(average_C.dtype), share.to(average_C.dtype))
            average_C.copy_(torch.where(kept, moved_C, average_C))
        self.num_batches_tracked += (count > 0) & kept


class ConvStem(nn.Module):
    """A 7x7 convolution, batch norm, ReLU and a 3x3 max-pool, both of stride 2 and SAME padding: 224 -> 56.

    What a convolution gives is linear in its weights. The mean and the variance of its results over a batch are
    functions of the weights and of two sums over the pixels, which need no weights: they are taken of the whole global
    batch before its micro-batches are computed. Each micro-batch then has the statistics of the global batch, and its
    gradient through them, however the batch is cut.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.convolution = Convolution(num_channels, STEM_WIDTH, side=SIDE, stride=STRIDE)
        self.norm = AveragedNorm(STEM_WIDTH)
        self._given_KK: Tensor | None = None
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, pixels: Float[Tensor, "B H W c"]) -> Float[Tensor, "B h w C"]:
        """Return the features, a quarter of the image's height and width.

        In training they are normalised with the statistics that `observe` was given, or with those of these pixels. A
        norm that is frozen keeps its running statistics and normalises with them.
        """
        norm, padded = self.norm, _padded(pixels)
        mean_C, variance_C = self._statistics(padded)
        scale_C = norm.weight.double() * (variance_C + norm.eps).rsqrt()
        offset_C = norm.bias.double() - mean_C * scale_C
        # A convolution and its norm are a convolution.
        kernel = self.convolution.weight * scale_C[:, None, None, None].to(self.convolution.weight.dtype)
        features = functional.relu(functional.conv2d(padded, kernel, offset_C.to(kernel.dtype), stride=STRIDE))
        height, width = features.shape[2:]
        # After the ReLU nothing is below 0, so that zeros pad a maximum as minus infinity would.
        pads = (*same_padding(width, POOL, STRIDE), *same_padding(height, POOL, STRIDE))
        pooled = functional.max_pool2d(functional.pad(features, pads), POOL, stride=STRIDE)
        return pooled.permute(0, 2, 3, 1)

    def sums(self, pixels: Float[Tensor, "B H W c"], shown_B: Bool[Tensor, " B"] | None = None) -> Float[Tensor, "K K"]:
        """Return the sums over the positions of these images, in float64; `shown` masks absent images."""
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return _sums(_padded(pixels if shown_B is None else _shown(pixels, shown_B)))

    def observe(self, sums_KK: Float[Tensor, "K K"]) -> None:
        """Take the sums over a global batch: until `settle`, training normalises with its statistics."""
        self._given_KK = sums_KK

    def settle(self, *, is_kept: Tensor | bool) -> None:
        """End a global batch; where it `is_kept`, its statistics enter the running ones."""
        if self._last is not None:
            self.norm.average(*self._last, is_kept)
        self._given_KK = self._last = None

    def _statistics(self, padded: Float[Tensor, "B c R S"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Mean and variance to normalise with, in float64: a filter may see a millionth of its pixels' variance."""
        if not (self.training and self.norm.weight.requires_grad):
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            return self.norm.running_mean.double(), self.norm.running_var.double()
        with torch.autocast(padded.device.type, enabled=False):
            sums_KK = _sums(padded) if self._given_KK is None else self._given_KK
            count = sums_KK[-1, -1]
            # A batch in which no sample has the modality has no places: its count is 0, and nothing is read of its
            # statistics.
            means_K = sums_KK[-1, :-1] / count.clamp(min=1)
            covariance_KK = sums_KK[:-1, :-1] / count.clamp(min=1) - means_K[:, None] * means_K
            kernel_CK = self.convolution.weight.flatten(1).double()
            mean_C = kernel_CK @ means_K
            # Rounding may bring the variance of a constant picture below 0.
            variance_C = ((kernel_CK @ covariance_KK) * kernel_CK).sum(dim=1).clamp(min=0)
        last = count, mean_C.detach(), variance_C.detach()
        if self._given_KK is None:
            # A network alone, whose caller observes nothing, behaves as PyTorch's batch norm.
            self.norm.average(*last)
        else:
            self._last = last
        return mean_C, variance_C


def _shown(pixels: Float[Tensor, "B H W c"], shown_B: Bool[Tensor, " B"]) -> Float[Tensor, "b H W c"]:
    """The images that are there; a mask on the host, where looking at it is free, makes nobody wait for a device."""
    if shown_B.device == pixels.device:
        return pixels[shown_B]
    rows = shown_B.nonzero().squeeze(1)
    on_device = rows.pin_memory() if pixels.is_cuda else rows
    return pixels if len(rows) == len(pixels) else pixels[on_device.to(pixels.device, non_blocking=True)]


def _padded(pixels: Float[Tensor, "B H W c"]) -> Float[Tensor, "B c R S"]:
    height, width = pixels.shape[1:3]
    pads = (*same_padding(width, SIDE, STRIDE), *same_padding(height, SIDE, STRIDE))
    return functional.pad(pixels.permute(0, 3, 1, 2), pads)


@torch.no_grad()
def _sums(padded: Float[Tensor, "B c R S"]) -> Float[Tensor, "K K"]:
    """Sums of the products of all that lies under the kernel and a 1."""
    places_BKL = functional.unfold(padded, SIDE, stride=STRIDE)
    places_KN = places_BKL.transpose(0, 1).flatten(1).double()
    # Not by functional.pad, which refuses a batch without a picture before PyTorch 2.10.
    places_KN = torch.cat([places_KN, places_KN.new_ones(1, places_KN.shape[1])])
    return places_KN @ places_KN.T
