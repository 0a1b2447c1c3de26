"""GradientWatch: which trained parameters got no gradient in the first steps of a start. No error would say so.

    first step     a hook on every trained parameter notes, on the device, whether a gradient that is not zero came by
    10 steps on    the notes of all ranks are summed, travel with the report of that step, and the hooks are gone
    a rollback     behind that step begins it again: the report of that step is dropped with its record

One step would accuse what it happened to leave out: a hidden input, a layer that stochastic depth skipped, all that
lies below a head that begins at zero.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from data_shards.files.display import printable
from model.attention.layers import Attention

_STEPS = 10
_SHOWN = 4


@dataclass(frozen=True)
class Notes:
    """What was noted of the trained parameters."""

    first: int
    """The first step that was watched, counted from 1."""
    last: int
    """The last one."""
    names: tuple[str, ...]
    """The parameters."""
    reached: Tensor
    """Beside each, on how many ranks a gradient reached it."""


class GradientWatch:
    """The watch over one network; it begins with the first step of a start, and again where more is trained."""

    def __init__(
        self, network: nn.Module, num_steps: int, late_steps: Collection[int], total: Callable[[Tensor], Tensor]
    ) -> None:
        """`num_steps` are those of the whole run; from `late_steps` on more is trained; `total` sums over the ranks."""
        self._network, self._num_steps, self._late_steps, self._total = network, num_steps, late_steps, total
        self._has_begun = False
        # The bias of keys is never missed: it adds the same number to all scores of a query, which softmax cancels, so
        # that its gradient is rounding, or 0.
        self._known = {f"{name}.key.bias" for name, module in network.named_modules() if isinstance(module, Attention)}
        self._flags: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._first, self._last = 0, 0
        self._settled: list[Notes] = []

    def prepare(self, step: int) -> None:
        """Begin where the step that follows so many is the first that trains what it trains."""
        # A rollback drops later steps and what they reported.
        undone = {name for notes in self._settled if notes.last > step for name in notes.names}
        if self._has_begun and step not in self._late_steps and not undone:
            return
        self._settled = [notes for notes in self._settled if notes.last <= step]
        self._known -= undone
        self._has_begun = True
        for name, parameter in self._network.named_parameters():
            if parameter.requires_grad and name not in self._known:
                self._known.add(name)
                self._first = self._first if self._flags else step + 1
                self._last = min(step + _STEPS, self._num_steps)
                self._flags[name] = torch.zeros((), dtype=torch.bool, device=parameter.device)
                # Before DeepSpeed's hooks, which may move the gradient elsewhere.
                hook = parameter.register_hook(_noting(self._flags[name]))  # type: ignore[no-untyped-call]
                self._handles.append(hook)

    def settle(self, step: int) -> Notes | None:
        """Return what was noted, once, where so many steps are the last that are watched. Collective there."""
        if not self._flags or step < self._last:
            return None
        for handle in self._handles:
            handle.remove()
        notes = Notes(self._first, step, tuple(self._flags), self._total(torch.stack([*self._flags.values()]).float()))
        self._flags, self._handles = {}, []
        self._settled.append(notes)
        return notes


def sentence(notes: Notes, counts: Sequence[float]) -> str:
    """Return the sentence for the user, with the counts of `reached` on the host; empty where all were reached."""
    reached = [name for name, count in zip(notes.names, counts, strict=True) if count]
    missed = [name for name, count in zip(notes.names, counts, strict=True) if not count]
    if not missed:
        return ""
    found = patterns(missed, reached)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    steps = f"step {notes.last}" if notes.first == notes.last else f"steps {notes.first} to {notes.last}"
    return printable(
        f"no gradient came to {len(missed)} of {len(notes.names)} trained tensors in {steps} "
        f"({', '.join(found[:_SHOWN])}{more}): no loss depends on them, or the samples of these steps lack what they "
        "are for; leave out of the network what is not used, or name it in optimizer.freeze"
    )


def patterns(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return patterns, as optimizer.freeze takes them, that match all of these names and none of the others."""
    found: list[str] = []
    for name in names:
        if not any(fnmatchcase(name, pattern) for pattern in found):
            found.append(
                next(each for each in _candidates(name) if not any(fnmatchcase(other, each) for other in others))
            )
    return found


def _candidates(name: str) -> list[str]:
    """Return patterns for a name, the widest first; numbers of layers stand for all layers where that is possible."""
    parts = name.split(".")
    wild = ["*" if part.isdecimal() else part for part in parts]
    wide = [".".join([*of[:depth], "*"]) for depth in range(1, len(parts)) for of in (wild, parts)]
    return [*wide, ".".join(wild), name]


def _noting(flag: Tensor) -> Callable[[Tensor], None]:
    def note(gradient: Tensor) -> None:
        # On the device: the host does not wait to know. A gradient that is not a number is one.
        flag.logical_or_(gradient.any())

    return note
