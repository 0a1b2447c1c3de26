"""Checks of a batch: one sentence per field, before a wrong batch becomes a confusing error inside the network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.config.perceiver import PerceiverConfig
from model.modalities.input import COORDINATES, Input

# A larger size is a slip, and would ask for its memory before anybody could say so.
_MOST = 2**20
_MOST_LISTED = 20
"""The names of tensors in one message."""


def check_inputs(config: PerceiverConfig, inputs: dict[str, Tensor], lengths: dict[str, Tensor] | None = None) -> None:
    """Raise ValueError with every field that is missing, has another shape than declared, or holds what it cannot.

    Values are checked on the CPU only: on a device every check would wait for it.
    """
    problems = [*_problems(config, inputs), *_place_problems(config, inputs)]
    # Only where the inputs are right: how many lengths are expected follows from them.
    if lengths is not None and not problems:
        problems = list(_length_problems(config, inputs, lengths))
    if problems:
        raise ValueError("; ".join(problems))


def check_lengths(lengths: dict[str, Tensor]) -> None:
    """Raise ValueError if a sample has no valid entry in any modality.

    The network answers such samples, with finite numbers that mean nothing: the padding of a last batch is made of
    them. Call this where there is no padding.
    """
    # Not an error of the network: the padding of a last batch has no valid entry on purpose.
    nothing = torch.stack([counts <= 0 for counts in lengths.values()]).all(dim=0)
    if nothing.any():
        rows = ", ".join(str(row) for row in nothing.nonzero().flatten().tolist())
        raise ValueError(f"lengths: expected a valid entry in every sample, samples {rows} have none in any modality")


def check_state(expected: Mapping[str, Sequence[int]], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the names that a state dict lacks or has too many, or the tensors of another shape."""
    check_names("the state dict", expected, state)
    shapes = [
        f"{name}: expected {tuple(shape)}, got {tuple(state[name].shape)}"
        for name, shape in expected.items()
        if tuple(shape) != tuple(state[name].shape)
    ]
    if shapes:
        raise ValueError(listed(shapes, "; "))


def check_names(where: str, expected: Iterable[str], found: Iterable[str]) -> None:
    """Raise ValueError with the expected names that are missing and the others that are there."""
    expected, found = set(expected), set(found)
    if expected != found:
        missing, surplus = sorted(expected - found), sorted(found - expected)
        raise ValueError(
            f"{where}: missing {listed(missing, ', ') or 'nothing'}; surplus {listed(surplus, ', ') or 'nothing'}"
        )


def listed(words: Sequence[str], between: str) -> str:
    """Return the first of some words, and how many more there are: a network of another kind lacks hundreds."""
    more = [f"and {len(words) - _MOST_LISTED} more"] if len(words) > _MOST_LISTED else []
    return between.join([*words[:_MOST_LISTED], *more])


def _problems(config: PerceiverConfig, inputs: dict[str, Tensor]) -> Iterator[str]:
    for name, modality in config.ordered_inputs.items():
        if name not in inputs:
            yield f"inputs.{name}: expected a tensor, got none; the inputs hold {sorted(inputs) or 'nothing'}"
            continue
        value, shape = inputs[name], modality.shape
        # By the modality, which may take fewer places than it has positions for.
        if not modality.takes(tuple(value.shape[1:])):
            expected = f"(batch, {', '.join(map(str, shape))})"
            if shape and modality.takes(tuple(0 for _ in shape)):
                expected += " or fewer places, as many as the table of positions has rows"
            yield f"inputs.{name}: expected {expected}, got {tuple(value.shape)}"
        # On a device each look at a value would wait for all that is queued there; while compiling there are no values.
        elif value.device.type == "cpu" and not torch.compiler.is_compiling():
            yield from _value_problems(name, value, modality)
        if modality.places is not None:
            yield from _given_problems(f"{name}.{COORDINATES}", inputs, modality.places)


def _given_problems(name: str, inputs: dict[str, Tensor], shape: tuple[int, ...]) -> Iterator[str]:
    """Yield what is wrong with the coordinates that come with an input."""
    expected = f"inputs.{name}: expected (batch, {', '.join(map(str, shape))})"
    if name not in inputs:
        yield f"{expected}, got none"
    elif tuple(inputs[name].shape[1:]) != shape:
        yield f"{expected}, got {tuple(inputs[name].shape)}"
    elif inputs[name].device.type == "cpu" and not torch.compiler.is_compiling():
        yield from _number_problems(name, inputs[name])


def _place_problems(config: PerceiverConfig, inputs: dict[str, Tensor]) -> Iterator[str]:
    """Yield what is wrong with the places at which outputs are asked."""
    for name, output in config.answers().items():
        at, num_axes = output.asked_at(), getattr(output, "num_axes", 0)
        if not at:
            continue
        if at not in inputs:
            yield f"inputs.{at}: expected the places at which {name} is asked, got none"
            continue
        value = inputs[at]
        if value.ndim != 3 or value.shape[2] != num_axes:
            yield f"inputs.{at}: expected (batch, places, {num_axes}), got {tuple(value.shape)}"
        elif value.device.type == "cpu" and not torch.compiler.is_compiling():
            yield from _number_problems(at, value)


def _length_problems(config: PerceiverConfig, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> Iterator[str]:
    for name in config.ordered_inputs:
        expected = (inputs[name].shape[0],)
        if name not in lengths:
            yield f"lengths.{name}: expected {expected}, got none; the lengths hold {sorted(lengths) or 'nothing'}"
        elif tuple(lengths[name].shape) != expected:
            yield f"lengths.{name}: expected {expected}, got {tuple(lengths[name].shape)}"


def _value_problems(name: str, value: Tensor, modality: Input) -> Iterator[str]:
    if value.is_floating_point():
        yield from _number_problems(name, value)
        return
    if modality.ids is None or not value.numel():
        return
    low, top = modality.ids
    if value.min() < low or value.max() >= top:
        yield f"inputs.{name}: expected ids from {low} to {top - 1}, got {int(value.min())} to {int(value.max())}"


def _number_problems(name: str, value: Tensor) -> Iterator[str]:
    # A sum is not finite if any of its terms is not, and takes one pass without a mask.
    if not value.sum(dtype=torch.float64).isfinite():
        rows = (~value.flatten(1).isfinite()).any(dim=1).nonzero().flatten().tolist()
        yield f"inputs.{name}: expected finite numbers, samples {rows} hold NaN or infinity"


def check_values(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise ValueError for the first value of another type than its default, or of a size that no model has."""
    for key, default in defaults.items():
        value = values[key]
        if isinstance(default, str):
            is_fit, expected = isinstance(value, str), "a text"
        elif isinstance(default, tuple):
            is_fit = isinstance(value, list | tuple) and len(value) == len(default) and all(map(_is_size, value))
            expected = f"{len(default)} whole numbers from 1 to {_MOST}"
        else:
            is_fit, expected = _is_size(value) or value is default is None, f"a whole number from 1 to {_MOST}"
        if not is_fit:
            raise ValueError(f"{key}: expected {expected}, got {repr(value)[:40]}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST
