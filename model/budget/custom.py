"""The cost of a plug-in's modules, which no configuration tells: counted while they run on tensors without data.

Operations are those of matrix products, convolutions and attention. Activations are what autograd keeps, in float32:
under autocast to half precision they are fewer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.config.cost import Cost
from model.config.perceiver import PerceiverConfig
from model.custom import CustomModule, empty_batch
from model.modalities.input import Input
from model.modalities.text import TextInput
from model.outputs.output import Output

_SAMPLES = 2
"""More than one: a batch norm refuses a single value."""


@dataclass(frozen=True)
class Measured:
    """What one forward pass of one sample takes."""

    parameters: int
    """Weights."""
    flops: int
    """Operations."""
    activation_bytes: int
    """What is kept for the backward pass."""


def measured(config: PerceiverConfig) -> Measured:
    """Return the cost of a network; of one that cannot run without data, by running it on the CPU."""
    try:
        return _on(torch.device("meta"), config)
    # Whatever a module does with values: a number that it reads, an index, a loop. With values it is counted as well.
    except (RuntimeError, NotImplementedError):
        return _on(torch.device("cpu"), config)


def adapter_cost(each: Input) -> Cost:
    """Return the cost of the adapter of an input."""

    def run(device: torch.device) -> Cost:
        module = each.adapter().to(device)
        values = torch.zeros(_SAMPLES, *each.shape, dtype=getattr(torch, each.dtype), device=device)
        return _cost(module, lambda: module(values, torch.float32))

    return _anywhere(run)


def head_cost(output: Output, width: int, num_asked: int, network: PerceiverConfig) -> Cost:
    """Return the cost of the head of an output, for so many rows of so many channels."""
    # A head that pools reads the latents.
    num_rows = num_asked if output.own_width(network) else network.num_latents
    whole = {"whole": True} if output.answers_points() else {}

    def run(device: torch.device) -> Cost:
        def embedding(name: str) -> Tensor:
            text = network.input_named(name)
            assert isinstance(text, TextInput), "an output asks for the table of a text"
            return torch.zeros(text.vocabulary, text.embedding_width, device=device)

        module = output.head(width, network, embedding).to(device)
        rows = torch.zeros(_SAMPLES, num_rows, width, device=device)
        return _cost(module, lambda: module(rows, **whole))

    return _anywhere(run)


def _cost(module: nn.Module, run: Callable[[], object]) -> Cost:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Cost(parameters, counter.get_total_flops() // _SAMPLES)


def _anywhere(run: Callable[[torch.device], Cost]) -> Cost:
    """Return what is counted without data, or where a module reads values, with zeros on the CPU."""
    try:
        with torch.device("meta"):
            return run(torch.device("meta"))
    except (RuntimeError, NotImplementedError):
        return run(torch.device("cpu"))


def _on(device: torch.device, config: PerceiverConfig) -> Measured:
    with device:
        network = CustomModule(config, seed=0)
        batch = empty_batch(config, _SAMPLES)
        own = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers(), *batch.values())}
        # Kept until the end: the memory of one that is gone may be another's.
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in own:
                kept[_storage(tensor)] = tensor
            return tensor

        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(batch)
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Measured(parameters, counter.get_total_flops() // _SAMPLES, size // _SAMPLES)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
