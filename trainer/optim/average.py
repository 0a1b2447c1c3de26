"""Average: the exponential moving average (EMA) of the weights, cut over the ranks as the optimizer's state is.

average <- decay * average + (1 - decay) * weights      in fp32, from zero, after every `every_steps`-th step
what is used: average / (1 - decay ** updates)          without the zero that it began with
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.ema_config import EmaConfig
from trainer.run_state import Averaged

_AT_ONCE = 4 << 20
"""Elements that are multiplied at once: the product takes memory beside the weights."""


class Average:
    """The average of the tensors that an optimizer updates."""

    def __init__(self, config: EmaConfig, masters: Sequence[Tensor]) -> None:
        self._config = config
        self._updates = 0
        self._tensors = {master: torch.zeros_like(master, requires_grad=False) for master in masters}

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Take in the weights after so many steps, if it is their turn; also of a step that was skipped."""
        if step % self._config.every_steps:
            return
        decay = self._config.decay
        for master, average in self._tensors.items():
            # Each product is rounded before the sum, wherever a cut lies: add_ with alpha may round once.
            for part, weights in zip(_parts(average), _parts(master), strict=True):
                part.mul_(decay).add_(weights * (1 - decay))
        self._updates += 1

    def of(self, master: Tensor) -> Tensor:
        """Return the average that belongs to a tensor, not yet corrected; writing into it changes it."""
        return self._tensors[master]

    def progress(self) -> Averaged:
        """Return what a checkpoint says of it beside its tensors."""
        return Averaged(self._config.decay, self._updates)

    def resumes(self, saved: Averaged | None) -> bool:
        """Return whether this average resumes that of a checkpoint: it must have been made with the same decay."""
        return saved is not None and saved.decay == self._config.decay

    def restart(self, saved: Averaged | None) -> None:
        """Resume with the tensors of a checkpoint, which are in place; begin anew where it has none of this decay."""
        self._updates = saved.updates if saved is not None and self.resumes(saved) else 0
        if not self._updates:
            for average in self._tensors.values():
                average.zero_()

    @contextmanager
    def in_place(self, refresh: Callable[[], None]) -> Iterator[None]:
        """Put the average in the place of the weights, if it has begun; `refresh` tells the network. Collective."""
        if not self._updates:
            yield
            return
        # In host memory: there is room beside what a step needs of a GPU.
        kept = [master.detach().to("cpu", copy=True) for master in self._tensors]
        with torch.no_grad():
            for master, average in self._tensors.items():
                master.copy_(corrected(average, self.progress()))
            refresh()
        # No `finally`: who fails leaves the others, and a refresh without them would wait for ever.
        yield
        with torch.no_grad():
            for master, weights in zip(self._tensors, kept, strict=True):
                master.copy_(weights)
            refresh()


def corrected(average: Tensor, averaged: Averaged) -> Tensor:
    """Return the average without the zero that it began with."""
    return average / (1 - averaged.decay**averaged.updates)


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor.detach().view(-1), _AT_ONCE)
