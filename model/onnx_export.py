"""A network as ONNX, for inference elsewhere."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.config_inputs import LabelInput, TextInput
from model.perceiver import Perceiver


class _Positional(nn.Module):
    """The network with a tensor an argument, as ONNX has them: the modalities, then their lengths, by name."""

    def __init__(self, network: Perceiver) -> None:
        super().__init__()
        self.network = network
        self.names = list(network.config.inputs.chosen())

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        count = len(self.names)
        inputs = dict(zip(self.names, values[:count], strict=True))
        lengths = dict(zip(self.names, values[count:], strict=True))
        return tuple(self.network(inputs, lengths).values())


def onnx_program(network: Perceiver) -> torch.onnx.ONNXProgram:
    """Return the ONNX program of a network; `.save(path)` writes it.

    Its inputs are the modalities by name (pixels uint8) and "NAME_length" for each, its outputs the answers by name, or
    "NAME_answer" where an input has that name; any batch size is taken.
    """
    network = _plain(network).eval()
    chosen = network.config.inputs.chosen()
    values = [_example(network, name) for name in chosen]
    lengths = [torch.full((2,), modality.shape[0] if modality.shape else 1) for modality in chosen.values()]
    names = [*chosen, *(f"{name}_length" for name in chosen)]
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own: deprecated parts of its dependencies
        answers = network(dict(zip(chosen, values, strict=True)))
        program = torch.onnx.export(
            _Positional(network),
            (*values, *lengths),
            input_names=names,
            # ONNX has one space of names: a text that is filled in would be its own input.
            output_names=[f"{name}_answer" if name in names else name for name in answers],
            dynamic_shapes={"values": tuple({0: batch} for _ in names)},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program


def _plain(network: Perceiver) -> Perceiver:
    """Return the network in the plain form: the tiles of the others depend on the batch size, which stays open here."""
    plain = Perceiver(replace(network.config, cross_attend_form="plain"), seed=0)
    plain.load_state_dict(network.state_dict())
    return plain.to(next(network.parameters()))


def _example(network: Perceiver, name: str) -> Tensor:
    modality = network.config.inputs.chosen()[name]
    shape = (2, *modality.shape)
    if isinstance(modality, TextInput | LabelInput):
        return torch.zeros(shape, dtype=torch.int64)
    return torch.zeros(shape, dtype=torch.uint8 if hasattr(modality, "pixel_range") else torch.float32)
