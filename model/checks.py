"""What is wrong with a batch, in one sentence a field, before it becomes a puzzling error inside the network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from model.config import PerceiverConfig
from model.config_inputs import AnyInput, LabelInput, TextInput


def check_inputs(config: PerceiverConfig, inputs: dict[str, Tensor]) -> None:
    """Raise ValueError with every field that is missing, has another shape than declared, or holds what it cannot.

    Values are looked at on the CPU only: on a device every look would wait for it.
    """
    problems = list(_problems(config, inputs))
    if problems:
        raise ValueError("; ".join(problems))


def check_lengths(lengths: dict[str, Tensor]) -> None:
    """Raise ValueError if a sample has no valid entry in any modality.

    The network answers such samples, with finite numbers that mean nothing: the padding of a last batch is made of
    them. Call this where there is no padding.
    """
    nothing = torch.stack([counts <= 0 for counts in lengths.values()]).all(dim=0)
    if nothing.any():
        rows = ", ".join(str(row) for row in nothing.nonzero().flatten().tolist())
        raise ValueError(f"lengths: expected a valid entry in every sample, samples {rows} have none in any modality")


def _problems(config: PerceiverConfig, inputs: dict[str, Tensor]) -> Iterator[str]:
    for name, modality in config.inputs.chosen().items():
        if name not in inputs:
            yield f"inputs.{name}: expected a tensor, got none; the inputs hold {sorted(inputs) or 'nothing'}"
            continue
        value, shape = inputs[name], modality.shape
        if not _fits(tuple(value.shape[1:]), modality):
            yield f"inputs.{name}: expected (batch, {', '.join(map(str, shape))}), got {tuple(value.shape)}"
        elif value.device.type == "cpu" and not torch.compiler.is_compiling():
            yield from _value_problems(name, value, modality)


def _fits(shape: tuple[int, ...], modality: AnyInput) -> bool:
    if isinstance(modality, TextInput):
        return len(shape) == 1 and shape[0] <= modality.max_tokens
    return shape == modality.shape


def _value_problems(name: str, value: Tensor, modality: AnyInput) -> Iterator[str]:
    if value.is_floating_point():
        # A sum is not finite if any of its terms is not, and takes one pass without a mask.
        if not value.sum(dtype=torch.float64).isfinite():
            rows = (~value.flatten(1).isfinite()).any(dim=1).nonzero().flatten().tolist()
            yield f"inputs.{name}: expected finite numbers, samples {rows} hold NaN or infinity"
        return
    if not isinstance(modality, TextInput | LabelInput) or not value.numel():
        return
    top = modality.vocabulary if isinstance(modality, TextInput) else modality.num_classes
    low = 0 if isinstance(modality, TextInput) else -1
    if value.min() < low or value.max() >= top:
        yield f"inputs.{name}: expected ids from {low} to {top - 1}, got {int(value.min())} to {int(value.max())}"
