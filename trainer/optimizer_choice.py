"""The optimizers that a run can choose by name, and where each is exact. Standard library only.

adamw          each element by itself               train.zero_stage 0 to 3
lamb           norms of whole tensors, summed       0, 1 and 2
muon           whole matrices                       0
a plug-in's    as its class says (elementwise)      0 to 3, or 0
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    # For a type alone: whoever only reads a configuration starts without torch.
    import torch

ADAMW, LAMB, MUON = "adamw", "lamb", "muon"
_OURS = (ADAMW, LAMB, MUON)
OF_BUILT_IN = ("beta1", "beta2", "epsilon")
"""The keys that the built-in optimizers read, and no other."""
# Names by which people ask for it: their refusal can say more than that there is no such optimizer.
_SCHEDULE_FREE = ("schedule_free", "schedulefree", "schedule_free_adamw", "adamw_schedule_free", "adamw_schedulefree")
Problems = Iterator[tuple[str, str]]


class RunOptimizer(ABC):
    """An optimizer that a plug-in makes: a frozen dataclass whose fields are the keys of `optimizer.options`."""

    name: ClassVar[str]
    """The name by which `optimizer.name` chooses it."""
    # False unless the class says so: on parts of tensors another optimizer computes other numbers, without any error.
    elementwise: ClassVar[bool] = False
    """Whether each element of a weight is updated by its own history, and by numbers that are the same for all. Only
    then it is exact at train.zero_stage 1 to 3, where a process holds parts of tensors."""
    numbers_per_weight: ClassVar[int] = 2
    """The numbers that it keeps beside each weight, for `perceiver plan`."""

    @abstractmethod
    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> "torch.optim.Optimizer":
        """Return the optimizer over parameter groups, each with its `weight_decay`.

        The rate of a group is set before each step, in its `lr`. What the optimizer keeps has to be in its `state`, by
        parameter, or in its groups: tensors and numbers under names. A checkpoint holds all of it.
        """

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem in its fields."""
        yield from ()


OPTIMIZERS: dict[str, Any] = {}
"""The optimizers of the plug-ins in use, by their name."""


def unknown(name: str) -> str:
    """Return why there is no optimizer of this name; empty where there is one."""
    if name in _SCHEDULE_FREE:
        reason = "its package schedulefree has had no release since March 2025; docs/training.md says more"
        # It trains other weights than it evaluates, and switches between the two in place.
        return f"schedule-free AdamW is not built in: {reason}; take adamw with ema.decay=0.999"
    if name not in (*_OURS, *OPTIMIZERS):
        return f"expected one of {', '.join((*_OURS, *OPTIMIZERS))}, or that of a plug-in, got {name!r}"
    return ""


def name_problems(name: str, options: Mapping[str, Any], own_keys: Mapping[str, object]) -> Problems:
    """Yield (key, sentence) where there is no such optimizer, or none with such options.

    `own_keys` are those of the built-in optimizers that are set, with their defaults.
    """
    if sentence := unknown(name):
        yield "name", sentence
    if name in OPTIMIZERS:
        options_of = ", ".join(f"optimizer.options.{field.name}" for field in fields(OPTIMIZERS[name])) or "none"
        for key, default in own_keys.items():
            remedy = f"leave it out or set it to {default}"
            yield key, f"is for {', '.join(_OURS)}, and {name} does not read it; {remedy} (its own keys: {options_of})"
    if name in _OURS and options:
        yield "options", f"are those of a plug-in's optimizer; {name} has keys of its own, such as optimizer.beta1"
    elif name in OPTIMIZERS:
        yield from ((f"options.{key}", sentence) for key, sentence in _option_problems(OPTIMIZERS[name], options))


def stage_problems(name: str, zero_stage: int) -> Problems:
    """Yield (key, sentence) where an optimizer is not exact at a ZeRO stage."""
    if name == LAMB and zero_stage == 3:
        yield "optimizer.name", "lamb is exact at train.zero_stage 0, 1 and 2 only; lower the stage, or take adamw"
    if name == MUON and zero_stage:
        why = "needs whole matrices, which a process has at train.zero_stage=0 only"
        yield "optimizer.name", f"muon {why}; set that, or take adamw"
    if name in OPTIMIZERS and zero_stage and not OPTIMIZERS[name].elementwise:
        why = "does not say that it is elementwise, and so needs whole tensors, which train.zero_stage=0 has"
        yield "optimizer.name", f"{name} {why}; set that, or elementwise = True in its class"


def _option_problems(own: type[Any], options: Mapping[str, Any]) -> Problems:
    known = {field.name: field for field in fields(own)}
    wrong = False
    for key, value in options.items():
        if key not in known:
            wrong = True
            yield key, f"is no option of {own.name}, which has {', '.join(known) or 'none'}"
        elif not _fits(value, known[key].default):
            wrong = True
            yield key, f"expected a value such as {known[key].default!r}, got {value!r}"
    # Its own checks may rely on the types of its fields.
    if not wrong:
        try:
            yield from own(**options).problems()
        # A field without a default that was not given; Python's own sentence names it.
        except TypeError as error:
            yield "", f"{error}; set it"


def _fits(value: object, default: object) -> bool:
    """Return whether a value is of the type of a default; any is where there is no default."""
    # YAML reads 1 as an integer where 1.0 is meant. bool is a subclass of int.
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return not isinstance(default, bool | int | str) or type(value) is type(default)
