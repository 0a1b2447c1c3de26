"""ONNX gives the answers of the network, for another batch size and with lengths."""

import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from model.config.attention import AttentionConfig
from model.config.custom_network import CustomNetwork
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.custom import new_network
from model.interop import onnx_export
from model.interop.onnx_export import _example, _metadata, _plain, _Positional, onnx_program
from model.modalities.array import ArrayInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.outputs.flow import FlowOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.outputs.points import PointsOutput
from model.perceiver import Perceiver

CONFIG = PerceiverConfig(
    inputs={
        "image": ImageInput(height=4, width=6, positions=PositionsConfig(num_bands=2)),
        "points": PointsInput(num_points=5, num_bands=2, max_frequency=4.0),
        "text": TextInput(max_tokens=8, embedding_width=14),
    },
    outputs={"label": LabelOutput(num_classes=3, pooling="query")},
    num_latents=4,
    latent_width=16,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=2),
)

# What is exported is unrolled: a second cross-attend and block double the time, and have a test of their own.
ONE_BLOCK = dataclasses.replace(CONFIG, num_cross_attends=1, num_blocks=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_onnx_answers_as_the_network_with_every_option(tmp_path: Path) -> None:
    heads = AttentionConfig(num_heads=2, qk_norm=True)
    options = {"cross_attend": dataclasses.replace(heads, qk_width=8), "mlp": "swiglu", "norm": "rms"}
    rotary = dataclasses.replace(heads, rotary=True)
    built = Perceiver(dataclasses.replace(CONFIG, self_attend=rotary, **options), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    onnx_program(built, with_latents=True).save(tmp_path / "network.onnx")
    inputs = {
        "image": torch.randint(0, 256, (3, 4, 6, 3), dtype=torch.uint8, generator=generator),
        "points": torch.rand(3, 5, 3, generator=generator) * 2 - 1,
        "text": torch.randint(0, 262, (3, 8), generator=generator),
    }
    lengths = {"image": torch.tensor([4, 0, 4]), "points": torch.tensor([5, 2, 0]), "text": torch.tensor([8, 8, 3])}
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    feeds = inputs | {f"{name}_length": length for name, length in lengths.items()}
    asked = ["label", "latents", "latents_mean"]
    label, *latents = map(torch.from_numpy, session.run(asked, {name: each.numpy() for name, each in feeds.items()}))
    # float32 in another runtime.
    torch.testing.assert_close(label, built(inputs, lengths)["label"], rtol=0, atol=1e-5)
    whole = built.latents(inputs, lengths)
    for found, expected in zip(latents, (whole, whole.mean(dim=1)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    told = session.get_modelmeta().custom_metadata_map
    assert (told["latents"], told["latents_mean"]) == ("float32 (batch, 4, 16)", "float32 (batch, 16)")


class Flat(nn.Module):
    """A linear layer over all pixels; `size` says how many samples there are."""

    def __init__(self, size: Callable[[torch.Tensor], int]) -> None:
        super().__init__()
        self.logits, self.size = nn.Linear(12, 3), size

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        photo = inputs["photo"]
        return {"digit": self.logits(photo.reshape(self.size(photo), 12).float() / 255)}


@dataclasses.dataclass(frozen=True)
class Own(CustomNetwork):
    size: Callable[[torch.Tensor], int] = len
    kind: Literal["own"] = "own"

    def module(self, inputs: Mapping[str, Input], outputs: Mapping[str, Output]) -> nn.Module:
        return Flat(self.size)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_the_network_of_a_plug_in_takes_any_batch_or_is_refused(tmp_path: Path) -> None:
    config = PerceiverConfig(
        inputs={"photo": ImageInput(height=2, width=2)},
        outputs={"digit": LabelOutput(num_classes=3)},
        network=Own(lambda photo: photo.shape[0]),
    )
    built = new_network(config, seed=0).eval()
    onnx_program(built, with_latents=True).save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    photos = torch.arange(60, dtype=torch.uint8).view(5, 2, 2, 3)
    (answer,) = session.run(None, {"photo": photos.numpy()})
    torch.testing.assert_close(torch.from_numpy(answer), built({"photo": photos})["digit"], rtol=0, atol=1e-5)
    fixed = new_network(dataclasses.replace(config, network=Own()), seed=0)
    with pytest.raises(ValueError, match=r"^model\.network: its forward fixes the batch size, as len\(\) .* use shape"):
        onnx_program(fixed)


def test_an_input_of_the_name_of_an_output_is_refused() -> None:
    image = ImageInput(height=4, width=6, positions=PositionsConfig(num_bands=2))
    built = Perceiver(dataclasses.replace(CONFIG, inputs={"latents": image}), seed=0)
    with pytest.raises(ValueError, match="latents"):
        onnx_program(built, with_latents=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_lengths_may_be_left_out_and_no_length_hides_a_part_of_a_picture(tmp_path: Path) -> None:
    built = Perceiver(ONE_BLOCK, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    classes = ("one", "zwei", "três")
    onnx_program(built, classes=classes, picture="resize=bilinear").save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    text = torch.randint(1, 262, (3, 8), generator=generator)
    text[1, 5:] = 0
    inputs = {
        "image": torch.randint(0, 256, (3, 4, 6, 3), dtype=torch.uint8, generator=generator),
        "points": torch.rand(3, 5, 3, generator=generator) * 2 - 1,
        "text": text,
    }
    feeds = {name: value.numpy() for name, value in inputs.items()}
    whole = {"image": [4, 4, 4], "points": [5, 5, 5], "text": [8, 5, 8]}
    for given, meant in (
        ({}, {}),
        ({"image_length": [1, 0, 28]}, {"image": [4, 0, 4]}),
        ({"image_length": [0], "points_length": [2]}, {"image": [0, 0, 0], "points": [2, 2, 2]}),
        ({"text_length": [8, 8, 99], "points_length": [0, -7, 99]}, {"text": [8, 8, 8], "points": [0, 0, 5]}),
    ):
        (label,) = session.run(["label"], feeds | {name: np.array(length) for name, length in given.items()})
        lengths = {name: torch.tensor(length) for name, length in {**whole, **meant}.items()}
        # float32 in another runtime.
        torch.testing.assert_close(torch.from_numpy(label), built(inputs, lengths)["label"], rtol=0, atol=1e-5)
    for wrong in ([4, 4], [[4, 4, 4]]):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(["label"], feeds | {"image_length": np.array(wrong)})
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(classes)
    assert told["image"].startswith("uint8 (batch, 4, 6, 3)")
    assert told["image"].endswith("resize=bilinear")
    assert told.keys() == {*feeds, *(f"{name}_length" for name in feeds), "label", "classes"}
    assert [value.name for value in session.get_inputs()] == list(feeds)


@pytest.mark.parametrize("library", ["onnx", "onnxscript"])
def test_a_library_that_is_missing_is_named_with_what_installs_it(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    sentence = rf"^ONNX needs {library}: pip install onnx onnxscript$"
    with pytest.raises(ValueError, match=sentence):
        onnx_program(Perceiver(CONFIG, seed=0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_upsampled_flow_is_answered_for_any_batch_and_named_apart_from_its_frames(tmp_path: Path) -> None:
    flow = FlowInput(height=9, width=13, conv_stem=True, project_to=0, positions=PositionsConfig(num_bands=2))
    outputs = {"flow": FlowOutput()}
    config = dataclasses.replace(ONE_BLOCK, inputs={"flow": flow}, outputs=outputs)
    built = Perceiver(config, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    onnx_program(built).save(tmp_path / "network.onnx")
    frames = torch.randint(0, 256, (3, 2, 9, 13, 3), dtype=torch.uint8, generator=generator)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    feeds = {"flow": frames.numpy(), "flow_length": torch.full((3,), 2).numpy()}
    (answer,) = session.run(["flow_answer"], feeds)
    # float32 in another runtime.
    torch.testing.assert_close(torch.from_numpy(answer), built({"flow": frames})["flow"], rtol=0, atol=1e-5)


def perturbed(config: PerceiverConfig) -> Perceiver:
    built = Perceiver(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return built


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, {}),
        ({"image": [1, 0, 28]}, {"image": [4, 0, 4]}),
        ({"image": [4, 0, -7]}, {"image": [4, 0, 0]}),
        ({"text": [8, 8, 99], "points": [0, -7, 99]}, {"text": [8, 8, 8], "points": [0, 0, 5]}),
        ({"text": [2, 0, 1], "points": [1, 2, 3]}, {"text": [2, 0, 1], "points": [1, 2, 3]}),
        ({"label": [0, 1, 9]}, {"label": [0, 1, 1]}),
    ],
)
def test_what_is_exported_takes_any_length_and_fills_in_those_that_are_left_out(
    said: dict[str, list[int]], meant: dict[str, list[int]]
) -> None:
    inputs = {**CONFIG.inputs, "label": LabelInput(num_classes=4)}
    built = perturbed(dataclasses.replace(CONFIG, inputs=inputs))
    text = torch.randint(1, 262, (3, 8), generator=torch.Generator().manual_seed(1))
    # A 0 between other ids is read; those after the last are not.
    text[1, 5:], text[1, 2], text[2] = 0, 0, 0
    values = {
        "image": torch.arange(216, dtype=torch.uint8).view(3, 4, 6, 3),
        "label": torch.tensor([0, 3, -1]),
        "points": torch.linspace(-1, 1, 45).view(3, 5, 3),
        "text": text,
    }
    whole = {"image": [4, 4, 4], "label": [1, 1, 1], "points": [5, 5, 5], "text": [8, 5, 0]}
    given = [torch.tensor(said.get(name, [-1, -1, -1])) for name in values]
    (found,) = _Positional(built)(*values.values(), *given)
    lengths = {name: torch.tensor(length) for name, length in {**whole, **meant}.items()}
    torch.testing.assert_close(found, built(values, lengths)["label"], rtol=0, atol=1e-6)


def test_the_file_says_what_each_input_is_and_how_its_length_counts() -> None:
    inputs = {**CONFIG.inputs, "label": LabelInput(num_classes=4)}
    network = Perceiver(dataclasses.replace(CONFIG, inputs=inputs), seed=0)
    told = _metadata(network, {"answer": [3]}, ["a", "ü"], "stretched")
    assert told["image"].startswith("uint8 (batch, 4, 6, 3)")
    assert told["image"].endswith("; stretched")
    assert told["text"].startswith("int64 (batch, 8), ids below 262")
    assert told["label"].startswith("int64 (batch), classes below 4")
    assert told["points"].startswith("float32 (batch, 5, 3), as data.inputs.points")
    for name in ("image", "label"):
        assert told[f"{name}_length"].endswith(
            "0 for a sample that lacks this input, 1 for one that has it; left out, all have it"
        )
    assert told["points_length"].endswith("0 to 5; left out, all 5")
    assert told["text_length"].endswith("0 to 8; left out, up to the last id that is not 0")
    assert (told["answer"], told["classes"]) == ("float32 (batch, 3)", '["a", "ü"]')
    bare = _metadata(network, {}, (), "")
    assert "classes" not in bare
    assert bare["image"] == network.config.ordered_inputs["image"].meaning("image")
    assert told["text"] == network.config.ordered_inputs["text"].meaning("text")
    assert {name: _example(network, name).dtype for name in network.config.ordered_inputs} == {
        "image": torch.uint8,
        "label": torch.int64,
        "points": torch.float32,
        "text": torch.int64,
    }
    assert _example(network, "points").shape == (2, 5, 3)


def test_what_is_exported_reads_in_the_plain_form_in_the_precision_of_the_network() -> None:
    network = perturbed(dataclasses.replace(CONFIG, cross_attend_form="absorbed")).double()
    plain = _plain(network)
    assert plain.config.cross_attend_form == "plain"
    assert all(torch.equal(plain.state_dict()[name], tensor) for name, tensor in network.state_dict().items())
    assert next(plain.parameters()).dtype == torch.float64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_coordinates_that_a_sample_brings_are_inputs_of_their_own(tmp_path: Path) -> None:
    seen = ArrayInput(shape=(5, 1), num_axes=2, positions=PositionsConfig(num_bands=2))
    outputs = {
        "far": PointsOutput(coordinates="wanted.coordinates", num_bands=2, num_points=4),
        "near": PointsOutput(coordinates="seen.coordinates", num_bands=2),
    }
    built = perturbed(dataclasses.replace(ONE_BLOCK, inputs={"seen": seen}, outputs=outputs))
    onnx_program(built).save(tmp_path / "network.onnx")
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "seen": torch.randn(3, 5, 1, generator=generator),
        "seen.coordinates": torch.rand(3, 5, 2, generator=generator),
        "wanted.coordinates": torch.rand(3, 4, 2, generator=generator),
    }
    lengths = {"seen": torch.tensor([5, 2, 4])}
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    feeds = {name.replace(".", "_"): value.numpy() for name, value in inputs.items()}
    found = session.run(["far", "near"], feeds | {"seen_length": lengths["seen"].numpy()})
    expected = built(inputs, lengths)
    for name, answer in zip(expected, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(answer), expected[name], rtol=0, atol=1e-5)


def test_a_text_ends_before_the_ids_of_its_own_pad() -> None:
    built = perturbed(dataclasses.replace(CONFIG, inputs={"text": CONFIG.inputs["text"]}))
    ids = torch.tensor([[5, 0, 5, 7, 7, 7, 7, 7], [0, 3, 9, 9, 9, 9, 9, 0]])
    (found,) = _Positional(built, {"text": 7})(ids, torch.tensor([-1, -1]))
    expected = built({"text": ids}, {"text": torch.tensor([3, 8])})["label"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert _metadata(built, {}, (), "", {"text": 7})["text_length"].endswith("the last id that is not 7")


@pytest.mark.filterwarnings("ignore:Input is deprecated")  # by a library that PyTorch's exporter needs
def test_what_the_exporter_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, tuple[torch.Tensor, ...], dict[str, Any]]] = []
    checked: list[object] = []
    program = program_of_lengths("batch")

    def export(module: nn.Module, values: tuple[torch.Tensor, ...], **options: Any) -> object:  # noqa: ANN401
        asked.append((module, values, options))
        assert logging.root.manager.disable == logging.WARNING
        warnings.warn("what the exporter says of itself is kept back", stacklevel=1)
        return program

    # The exporter itself takes seconds, and has slow tests.
    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setattr(onnx_export, "_refuse_fixed_batch", checked.append)
    monkeypatch.setattr(onnx_export, "_make_optional", lambda *each: checked.append(each))
    seen = ArrayInput(shape=(5, 1), num_axes=2, positions=PositionsConfig(num_bands=2))
    text = TextInput(max_tokens=8, embedding_width=14)
    outputs = {
        "text": LabelOutput(num_classes=3),
        "far": PointsOutput(coordinates="at", num_axes=3, num_bands=2, num_points=4),
    }
    config = dataclasses.replace(ONE_BLOCK, inputs={"seen": seen, "text": text}, outputs=outputs)
    built = Perceiver(config, seed=0)
    pads = {"text": 7}
    assert onnx_program(built, classes=("a", "b"), pads=pads, with_latents=True) is program
    ((module, values, options),) = asked
    names = ["seen", "text", "seen_coordinates", "at", "seen_length", "text_length"]
    assert [((*each.shape,), each.dtype) for each in values] == [
        ((2, 5, 1), torch.float32),
        ((2, 8), torch.int64),
        ((2, 5, 2), torch.float32),
        ((2, 4, 3), torch.float32),
        ((2,), torch.int64),
        ((2,), torch.int64),
    ]
    assert [each.tolist() for each in values[-2:]] == [[5, 5], [8, 8]]
    batch = options.pop("dynamic_shapes")["values"]
    assert [list(each) for each in batch] == [[0]] * 6
    assert batch[0][0].min == 1
    assert options == {
        "input_names": names,
        # What pools the latents is answered first, in the order of the network's answers.
        "output_names": ["text_answer", "far", "latents", "latents_mean"],
        "dynamo": True,
        "verbose": False,
    }
    assert (module.pads, module.with_latents, module.network.config.cross_attend_form) == (pads, True, "plain")
    assert not module.network.training
    assert checked == [program, (program, "seen"), (program, "text")]
    assert logging.root.manager.disable != logging.WARNING
    told = program.model.metadata_props
    assert {name: told[name] for name in ("far", "text_answer", "latents", "latents_mean", "classes", "at")} == {
        "far": "float32 (batch, 4, 1)",
        "text_answer": "float32 (batch, 3)",
        "latents": "float32 (batch, 4, 16)",
        "latents_mean": "float32 (batch, 16)",
        "classes": '["a", "b"]',
        "at": "float32 (batch, 4, 3), coordinates in [-1, 1]",
    }
    assert told["text_length"].endswith("the last id that is not 7")
    # Without latents, and with nothing to tell apart.
    onnx_program(Perceiver(dataclasses.replace(config, outputs={"far": outputs["far"]}), seed=0))
    assert (asked[1][2]["output_names"], asked[1][0].with_latents) == (["far"], False)


def test_latents_are_exported_beside_the_answers() -> None:
    built = perturbed(ONE_BLOCK)
    text = torch.arange(16).view(2, 8)
    values = {
        "image": torch.arange(144, dtype=torch.uint8).view(2, 4, 6, 3),
        "points": torch.linspace(-1, 1, 30).view(2, 5, 3),
        "text": text,
    }
    given = [torch.tensor([4, 0]), torch.tensor([5, 3]), torch.tensor([8, 8])]
    label, latents, mean = _Positional(built, with_latents=True)(*values.values(), *given)
    lengths = dict(zip(values, given, strict=True))
    torch.testing.assert_close(label, built(values, lengths)["label"], rtol=0, atol=1e-6)
    torch.testing.assert_close(latents, built.latents(values, lengths), rtol=0, atol=1e-6)
    torch.testing.assert_close(mean, latents.mean(dim=1))


def program_of_lengths(batch: int | str) -> torch.onnx.ONNXProgram:
    """A program that answers the lengths that it is given, as the exporter makes it."""
    import onnx_ir

    x = onnx_ir.Input("x", onnx_ir.Shape([batch, 3]), onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
    length = onnx_ir.Input("x_length", onnx_ir.Shape([batch]), onnx_ir.TensorType(onnx_ir.DataType.INT64))
    node = onnx_ir.node("Identity", [length])
    node.outputs[0].name = "answer"
    node.outputs[0].type, node.outputs[0].shape = length.type, length.shape
    graph = onnx_ir.Graph([x, length], node.outputs, nodes=[node], opset_imports={"": 18})
    return torch.onnx.ONNXProgram(onnx_ir.Model(graph, ir_version=10), None)


@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_a_length_may_be_left_out_or_be_one_for_all() -> None:
    import onnx_ir

    program = program_of_lengths("batch")
    onnx_export._refuse_fixed_batch(program)
    onnx_export._make_optional(program, "x")
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(program.model).SerializeToString())
    x = np.zeros((3, 3), dtype=np.float32)
    for given, meant in (({}, [-1, -1, -1]), ({"x_length": [2]}, [2, 2, 2]), ({"x_length": [4, 0, 1]}, [4, 0, 1])):
        (answer,) = session.run(None, {"x": x, **{name: np.array(each) for name, each in given.items()}})
        assert answer.tolist() == meant
    assert [value.name for value in session.get_inputs()] == ["x"]
    assert [value.name for value in session.get_overridable_initializers()] == ["x_length"]


@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_a_graph_of_a_fixed_batch_is_refused() -> None:
    program = program_of_lengths(2)
    with pytest.raises(ValueError, match=r"^model\.network: its forward fixes the batch size"):
        onnx_export._refuse_fixed_batch(program)
