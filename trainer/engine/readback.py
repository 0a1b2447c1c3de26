"""Asynchronous copies of numbers from the device to the host, which are read when they are needed."""

from collections.abc import Callable

import torch
from torch import Tensor


def read_later(numbers: Tensor) -> Callable[[], list[float]]:
    """Start copying a vector to the host; what is returned gives it, and waits for the device only if it must.

    From a GPU the copy goes to page-locked memory behind the work that is queued, and waits for nothing but that.
    """
    if numbers.device.type != "cuda":
        return numbers.tolist
    # Page-locked: into other memory a copy from the device makes the host wait, non_blocking or not.
    copied = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    copied.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return copied.tolist()

    return read
