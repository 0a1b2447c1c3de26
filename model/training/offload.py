"""Activations for the backward pass, kept in host memory. On a GPU they are copied on a stream of their own.

The way there runs beside the layers that follow. The way back begins a layer early: while the backward pass is at a
layer, what the layer before it kept is on its way. The host waits for neither.

    computes   layer 0 | layer 1 | layer 2 |   backward of 2 | of 1 | of 0
    copies               0 out   | 1 out   | 2 out, 2 in     | ...
                                               begins 1 in   | 0 in |
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import ReferenceType, ref

import torch
from torch import Tensor


@runtime_checkable
class Carrier(Protocol):
    """Copies between a device and the host, beside what the device computes."""

    def leave(self, tensor: Tensor) -> Tensor:
        """Start the copy to the host, behind what is queued now; return where it will be."""
        ...

    def fetch(self, kept: Tensor) -> tuple[Tensor, Any]:
        """Start the copy back, behind the copies before it; return it with a mark of its arrival."""
        ...

    def meet(self, tensor: Tensor, arrival: Any) -> None:  # noqa: ANN401  # a mark of the carrier's own
        """Let what is queued from now on wait for the arrival."""
        ...


class SideStream:
    """The copies of one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def leave(self, tensor: Tensor) -> Tensor:
        """Start the copy to the host; see Carrier."""
        # Page-locked: from any other memory the copy back would make the host wait.
        kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            kept.copy_(tensor, non_blocking=True)
        # Its memory may be free for others once it is copied, and not before.
        tensor.record_stream(self._stream)
        return kept

    def fetch(self, kept: Tensor) -> tuple[Tensor, Any]:
        """Start the copy back; see Carrier."""
        with torch.cuda.stream(self._stream):
            # On the stream of the copies to the host, and so behind them: what is fetched has arrived there.
            back = kept.to(self._device, non_blocking=True)
            arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrival.record(self._stream)
        return back, arrival

    def meet(self, tensor: Tensor, arrival: Any) -> None:  # noqa: ANN401  # an event
        """Let later work wait for the arrival; see Carrier."""
        current = torch.cuda.current_stream(self._device)
        # The device waits, not the host. The memory belongs to the side stream, which must not reuse it before the
        # reader is done.
        current.wait_event(arrival)
        tensor.record_stream(current)


@dataclass(eq=False)
class _Kept:
    """A tensor on the host, and perhaps on its way back."""

    tensor: Tensor
    # Weak: a chain of strong references would keep the activations of every earlier step in memory.
    before: "ReferenceType[_Kept] | None"
    """What was kept before it, and is needed after it."""
    coming: tuple[Tensor, Any] | None = None


class Offload:
    """Keeps tensors on the host, in the order in which a forward pass gives them; `pack` and `unpack` are hooks."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._last: ReferenceType[_Kept] | None = None

    def pack(self, tensor: Tensor) -> "_Kept | Tensor":
        """Take a tensor for the backward pass."""
        if not tensor.numel():
            # There is nothing to copy, and it would stand between two layers that wait for each other.
            return tensor
        kept = _Kept(self._carrier.leave(tensor), self._last)
        self._last = ref(kept)
        return kept

    def unpack(self, kept: "_Kept | Tensor") -> Tensor:
        """Give it back, and have the one that was taken before it on its way."""
        if isinstance(kept, Tensor):
            return kept
        back, arrival = kept.coming or self._carrier.fetch(kept.tensor)
        # Dropped here, or the copy on the device would live as long as the graph.
        kept.coming = None
        before = kept.before() if kept.before is not None else None
        if before is not None and before.coming is None:
            # Before the wait below: its copy then runs while the device is at this layer.
            before.coming = self._carrier.fetch(before.tensor)
        self._carrier.meet(back, arrival)
        return back
