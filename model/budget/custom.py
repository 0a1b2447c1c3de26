"""The cost of a plug-in's modules, which no configuration tells: counted while they run."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.budget.counting import SAMPLES, Measured, anywhere, measured
from model.config.cost import Cost
from model.config.perceiver import PerceiverConfig
from model.custom import CustomModule
from model.modalities.input import Input
from model.modalities.text import TextInput
from model.outputs.output import Output


def network_measured(config: PerceiverConfig) -> Measured:
    """Return what a plug-in's network takes."""
    return measured(lambda: CustomModule(config, seed=0), config)


def adapter_cost(each: Input) -> Cost:
    """Return the cost of the adapter of an input."""

    def run(device: torch.device) -> Cost:
        module = each.adapter().to(device)
        values = torch.zeros(SAMPLES, *each.shape, dtype=getattr(torch, each.dtype), device=device)
        return _cost(module, lambda: module(values, torch.float32))

    return anywhere(run)


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
        rows = torch.zeros(SAMPLES, num_rows, width, device=device)
        return _cost(module, lambda: module(rows, **whole))

    return anywhere(run)


def _cost(module: nn.Module, run: Callable[[], object]) -> Cost:
    counter = FlopCounterMode(display=False)
    # Without gradients: the counter counts what runs, and the formulas of ours are of the forward pass too.
    with counter, torch.no_grad():
        run()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Cost(parameters, counter.get_total_flops() // SAMPLES)
