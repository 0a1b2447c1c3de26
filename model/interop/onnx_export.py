"""Export of a network to ONNX. The file documents its inputs and outputs.

    photo (batch, H, W, c)  ----------------------------.
                                                         >--  network  --->  digit (batch, classes)
    photo_length (batch or 1), -1 by default  -[spread]-'

An input of ONNX may be left out only where it has a constant, and lengths by default are no constants: -1 stands for
them, which becomes all entries, or of a text those up to its last id that does not pad it. Coordinates that a sample
brings are inputs of their own, NAME_coordinates, and so are places at which outputs are asked.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from model.modalities.image import ImageInput
from model.modalities.input import COORDINATES, Input
from model.modalities.text import TextInput
from model.network import AnyNetwork
from model.perceiver import Perceiver

_ZERO: Mapping[str, int] = MappingProxyType({})
"""Of bytes 0 pads."""
_UNSAID = -1
"""The length that stands for one that is left out."""


LATENTS, MEAN = "latents", "latents_mean"
"""The outputs beside the answers."""


class _Positional(nn.Module):
    """The network with a tensor an argument, as ONNX has them: the modalities, places, then lengths, by name."""

    def __init__(self, network: AnyNetwork, pads: Mapping[str, int] = _ZERO, *, with_latents: bool = False) -> None:
        super().__init__()
        self.network, self.pads, self.with_latents = network, pads, with_latents
        self.modalities = network.config.ordered_inputs
        self.places = list(_places(network))

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        names = [*self.modalities, *self.places]
        inputs = dict(zip(names, values[: len(names)], strict=True))
        said = dict(zip(self.modalities, values[len(names) :], strict=True))
        lengths = {
            name: _valid(self.modalities[name], inputs[name], said[name], self.pads.get(name, 0))
            for name in self.modalities
        }
        if not self.with_latents:
            return tuple(self.network(inputs, lengths).values())
        network = self.network
        assert isinstance(network, Perceiver)
        tokens = network.inputs(inputs, lengths, None, network.encoder.latents.weight.dtype)
        latents_BND = network.encoder(tokens)
        return (*network.decoder(latents_BND, tokens, inputs).values(), latents_BND, latents_BND.mean(dim=1))


def _places(network: AnyNetwork) -> dict[str, tuple[int, ...]]:
    """Return the shape of all coordinates that come with a sample, by the names that the network has for them."""
    inputs, answers = network.config.ordered_inputs.items(), network.config.answers().values()
    found = {f"{name}.{COORDINATES}": modality.places for name, modality in inputs if modality.places is not None}
    asked = {output.asked_at(): output for output in answers if output.asked_at() and output.asked_at() not in found}
    for name, output in asked.items():
        found[name] = output.num_queries(network.config), int(getattr(output, "num_axes", 0))
    return found


def _valid(modality: Input, value: Tensor, said: Tensor, pad: int) -> Tensor:
    """The number of valid entries of each sample."""
    full = _entries(modality)
    if isinstance(modality, TextInput):
        # Up to the last id that is not padding.
        # Whoever pads with 0 need not count: of bytes, 0 is PAD and no letter.
        left_out = (torch.arange(1, full + 1, device=value.device) * (value != pad)).amax(dim=1)
    else:
        left_out = torch.full_like(said, full)
    there = full * said.clamp(0, 1) if modality.is_whole else said.clamp(0, full)
    return torch.where(said == _UNSAID, left_out, there)


def onnx_program(
    network: AnyNetwork,
    *,
    classes: Sequence[str] = (),
    picture: str = "",
    pads: Mapping[str, int] = _ZERO,
    with_latents: bool = False,
) -> torch.onnx.ONNXProgram:
    """Return the ONNX program of a network; `.save(path)` writes it.

    Its inputs are the modalities by name (pixels uint8) and, optional, "NAME_length" for each, its outputs the answers
    by name, or "NAME_answer" where an input has that name; any batch size is taken. Its metadata explains each, with
    how a `picture` comes to its size, and has the names of the `classes` as JSON. `pads` has the id that pads a text,
    by its name, where that is not 0. `with_latents` adds the outputs "latents" and "latents_mean"; the network of a
    plug-in has none. ValueError where a library is missing.
    """
    if network.config.stream:
        raise ValueError(
            f"outputs: an ONNX file keeps no keys of what inputs.{network.config.stream} had before, by which it is "
            "continued; `perceiver generate` and model.generation do"
        )
    _check_libraries()
    network = _plain(network).eval()
    chosen = network.config.ordered_inputs
    places = {name: torch.zeros(2, *shape) for name, shape in _places(network).items()}
    values = {name: _example(network, name) for name in chosen} | places
    lengths = [torch.full((2,), _entries(modality)) for modality in chosen.values()]
    names = [*chosen, *(name.replace(".", "_") for name in places), *(f"{name}_length" for name in chosen)]
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), _quiet():
        answers = network(values)
        # ONNX has one space of names: a text that is filled in would be its own input.
        more = (LATENTS, MEAN) if with_latents and isinstance(network, Perceiver) else ()
        outputs = {name: f"{name}_answer" if name in (*names, *more) else name for name in answers}
        _refuse_twice([*names, *outputs.values(), *more])
        program = torch.onnx.export(
            _Positional(network, pads, with_latents=bool(more)),
            (*values.values(), *lengths),
            input_names=names,
            output_names=[*outputs.values(), *more],
            dynamic_shapes={"values": tuple({0: batch} for _ in names)},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _refuse_fixed_batch(program)
    for name in chosen:
        _make_optional(program, name)
    shapes = {outputs[name]: list(answer.shape[1:]) for name, answer in answers.items()}
    if more:
        num_latents, width = network.config.num_latents, network.config.latent_width
        shapes |= {LATENTS: [num_latents, width], MEAN: [width]}
    program.model.metadata_props.update(_metadata(network, shapes, classes, picture, pads))
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says of itself: deprecated parts, missing libraries, folds that it skips."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _refuse_fixed_batch(program: torch.onnx.ONNXProgram) -> None:
    """Raise ValueError where the module of a plug-in makes the size of the batch a number of its own."""
    if any(isinstance(value.shape[0], int) for value in program.model.graph.inputs if value.shape is not None):
        raise ValueError(
            "model.network: its forward fixes the batch size, as len() of a tensor does, so that the ONNX file would "
            "take no other; use shape[0] in place of len()"
        )


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"inputs: an ONNX file would have two tensors of the name {', '.join(twice)}; rename the input"
        )


def _check_libraries() -> None:
    try:
        import onnx  # noqa: F401  # the exporter's
        import onnxscript  # noqa: F401  # the same
    except ImportError as error:
        raise ValueError(f"ONNX needs {str(error.name).partition('.')[0]}: pip install onnx onnxscript") from error


def _make_optional(program: torch.onnx.ONNXProgram, name: str) -> None:
    """Let the length of a modality be left out, or be one number for all samples."""
    import onnx_ir

    graph = program.model.graph
    inputs = {value.name: value for value in graph.inputs}
    inner = inputs[f"{name}_length"]
    outer = onnx_ir.Input(f"{name}_length", onnx_ir.Shape(["samples_or_1"]), onnx_ir.TensorType(onnx_ir.DataType.INT64))
    # An initializer of an input's name is what the input is where nothing is given.
    outer.const_value = onnx_ir.tensor([_UNSAID], dtype=onnx_ir.DataType.INT64, name=outer.name)
    size = onnx_ir.node("Shape", [inputs[name]], {"start": 0, "end": 1})
    spread = onnx_ir.node("Expand", [outer, size.outputs[0]])
    spread.outputs[0].name, size.outputs[0].name = f"{name}_length_of_each", f"{name}_samples"
    inner.replace_all_uses_with(spread.outputs[0])
    graph.inputs[graph.inputs.index(inner)] = outer
    graph.register_initializer(outer)
    first = next(iter(graph))
    # In front: nodes of ONNX are in the order in which they run, and the first one may read a length.
    graph.insert_before(first, [size, spread])


def _metadata(
    network: AnyNetwork,
    shapes: dict[str, list[int]],
    classes: Sequence[str],
    picture: str,
    pads: Mapping[str, int] = _ZERO,
) -> dict[str, str]:
    told = {}
    for name, cells in _places(network).items():
        told[name.replace(".", "_")] = f"float32 (batch, {', '.join(map(str, cells))}), coordinates in [-1, 1]"
    for name, modality in network.config.ordered_inputs.items():
        told[name] = modality.meaning(name) + (f"; {picture}" if picture and isinstance(modality, ImageInput) else "")
        told[f"{name}_length"] = _explained_length(modality, pads.get(name, 0))
    for name, shape in shapes.items():
        told[name] = f"float32 (batch, {', '.join(map(str, shape))})"
    if classes:
        told["classes"] = json.dumps(list(classes), ensure_ascii=False)
    return told


def _explained_length(modality: Input, pad: int) -> str:
    kind = "int64 (batch) or (1), optional: "
    if modality.is_whole:
        return kind + "0 for a sample that lacks this input, 1 for one that has it; left out, all have it"
    full = _entries(modality)
    missing = f"up to the last id that is not {pad}" if isinstance(modality, TextInput) else f"all {full}"
    return kind + f"how many entries from the first on are valid, 0 to {full}; left out, {missing}"


def _entries(modality: Input) -> int:
    """Entries along the first axis, which a length counts."""
    return modality.shape[0] if modality.shape else 1


def _plain(network: AnyNetwork) -> AnyNetwork:
    """Return the network in the plain form: the tiles of the others depend on the batch size, which stays open here."""
    if not isinstance(network, Perceiver):
        return network
    plain = Perceiver(replace(network.config, cross_attend_form="plain"), seed=0)
    plain.load_state_dict(network.state_dict())
    return plain.to(next(network.parameters()))


def _example(network: AnyNetwork, name: str) -> Tensor:
    modality = network.config.ordered_inputs[name]
    # Two samples: torch.export takes an axis of length 1 for a constant, and the file would then take one sample only.
    shape = (2, *modality.shape)
    return torch.zeros(shape, dtype=getattr(torch, modality.dtype))
