"""The update of a step: a finite gradient is clipped and applied; with any other gradient nothing changes."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.optim.partitions import Clippable


class Update(Protocol):
    """The update of a ZeRO stage in a precision. Collective."""

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Update; return the norm of the gradient before clipping, and whether it was finite, both on the device."""
        ...


@dataclass(frozen=True)
class DeviceUpdate:
    """ZeRO 0, 1 and 2 in fp32 and bf16: the device itself skips a step, and the host need not wait to know."""

    deepspeed: Any
    inner: torch.optim.Optimizer
    partitions: Clippable
    clip_norm: float
    world: World

    def __call__(self) -> tuple[Tensor, Tensor]:
        """See Update."""
        norm = self.partitions.gradient_norm(self.world.sum)
        is_finite = norm.isfinite()
        # Also where the norm is not finite: to ask would be a wait, and found_inf keeps what comes out from being
        # applied.
        if self.clip_norm > 0:
            torch._foreach_mul_(self.partitions.gradients(), self.partitions.clip_factor(norm, self.clip_norm))
        # What torch's fused optimizers, and LAMB, read on the device. DeepSpeed checks nothing at ZeRO 0 in fp32: one
        # NaN in a gradient made all weights NaN.
        self.inner.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        # Also for a gradient that is dropped: DeepSpeed clears the gradients in it, and counts micro-batches.
        self.deepspeed.step()
        return norm, is_finite


@dataclass(frozen=True)
class HostUpdate:
    """ZeRO 3, and fp16, whose loss scale is a number of the host: DeepSpeed waits for the device once or more."""

    deepspeed: Any
    device: torch.device

    def __call__(self) -> tuple[Tensor, Tensor]:
        """See Update."""
        self.deepspeed.step()
        norm = torch.as_tensor(self.deepspeed.get_global_grad_norm(), device=self.device)
        return norm, torch.full((), not self.deepspeed.optimizer.overflow, device=self.device)
