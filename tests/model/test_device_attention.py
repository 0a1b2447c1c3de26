"""What attention is given on a GPU: masks that hide something only, and heads of widths that its kernels take.

PyTorch's device "meta" stands for the GPU: its tensors have shapes but no numbers, and a look at one fails where on a
GPU it would wait. The same arithmetic on the CPU shows that the numbers are equal.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import model.attention.alignment
import model.attention.layers
from data_shards.loading.batch import Batch
from model.attention.alignment import aligned_width
from model.attention.dispatch import attend, padded_heads
from model.attention.layers import CrossAttend
from model.attention.norms import normalised
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.byte_array import Inputs, hides_nothing, valid_tokens
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver
from trainer.tasks.objective import objective

FEW = PositionsConfig(num_bands=3)
IMAGE = ImageInput(height=6, width=4, positions=FEW)  # 3 + 14 channels
AUDIO = AudioInput(num_samples=24, patch=4, positions=FEW)
SMALL = PerceiverConfig(
    inputs={"image": IMAGE},
    outputs={"label": LabelOutput(num_classes=5, pooling="query")},
    num_latents=6,
    latent_width=16,
    num_cross_attends=3,
    num_blocks=1,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=2),
    cross_attend_form="plain",
)
BOTH = dataclasses.replace(SMALL, inputs={"image": IMAGE, "audio": AUDIO})
CLASSIFY = objective({"label": LabelOutput()})


class Calls(TorchFunctionMode):
    """The arguments of every call of scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor | None] = []
        self.widths: list[tuple[int, int]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.masks.append((kwargs or {}).get("attn_mask"))
            self.widths.append((args[0].shape[-1], args[2].shape[-1]))
        return func(*args, **(kwargs or {}))


class Pads(TorchDispatchMode):
    """The shapes of what is padded, and of what is copied to be contiguous or cut."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func is torch.ops.aten.constant_pad_nd.default:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def batch(config: PerceiverConfig, lengths: dict[str, list[int]]) -> Batch:
    """A batch on the host with these lengths."""
    num_samples = len(next(iter(lengths.values())))
    generator = torch.Generator().manual_seed(0)
    arrays = {n: torch.rand(num_samples, *m.shape, generator=generator) for n, m in config.ordered_inputs.items()}
    counts = {name: torch.tensor(count) for name, count in lengths.items()}
    return Batch(
        arrays, counts, torch.zeros(num_samples, dtype=torch.int64), torch.ones(num_samples), ("a",) * num_samples
    )


def masks_on_a_gpu(config: PerceiverConfig, lengths: dict[str, list[int]]) -> list[Tensor | None]:
    """The masks that attention is given of a batch from the host, in the encoder and in the decoder."""
    network, given = Perceiver(config, seed=0).to("meta"), batch(config, lengths).to("meta")
    with Calls() as calls:
        CLASSIFY.sums(network, given)
    return calls.masks


@pytest.mark.parametrize("config", [SMALL, BOTH], ids=["image", "image and audio"])
def test_a_gpu_is_given_no_mask_where_nothing_is_hidden(config: PerceiverConfig) -> None:
    lengths = {name: [modality.shape[0]] * 2 for name, modality in config.ordered_inputs.items()}
    masks = masks_on_a_gpu(config, lengths)
    assert masks
    assert all(mask is None for mask in masks)


@pytest.mark.parametrize(
    "lengths",
    [{"image": [6, 0], "audio": [24, 24]}, {"image": [6, 6], "audio": [24, 3]}],
    ids=["a modality that one sample lacks", "a recording that is short"],
)
def test_a_gpu_is_given_a_mask_where_one_sample_hides_something(lengths: dict[str, list[int]]) -> None:
    masks = masks_on_a_gpu(BOTH, lengths)
    assert sum(mask is not None for mask in masks) == BOTH.num_cross_attends


def test_lengths_that_are_on_the_device_alone_are_not_waited_for() -> None:
    network, pixels = Perceiver(SMALL, seed=0).to("meta"), torch.empty(2, *IMAGE.shape, device="meta")
    with Calls() as calls:
        network({"image": pixels}, {"image": torch.empty(2, dtype=torch.int64, device="meta")})
    assert sum(mask is not None for mask in calls.masks) == SMALL.num_cross_attends


def test_micro_batches_on_a_device_keep_what_is_known_of_their_lengths() -> None:
    here = batch(BOTH, {"image": [6, 6, 6, 0], "audio": [24, 24, 24, 24]}).to("meta")
    assert here.lengths["image"].device.type == "meta"
    assert [part.host_lengths["image"].tolist() for part in here.micro_batches(2)] == [[6, 6], [6, 0]]


@pytest.mark.parametrize(
    "modality",
    [
        IMAGE,
        AUDIO,
        ImageInput(height=6, width=4, patch=2, positions=FEW),
        ImageInput(height=7, width=8, conv_stem=True, positions=FEW),
        VideoInput(num_frames=4, height=4, width=4, patch_frames=2, positions=FEW),
        TextInput(vocabulary=9, max_tokens=5, embedding_width=4),
    ],
    ids=lambda modality: type(modality).__name__,
)
def test_what_hides_nothing_is_what_the_mask_says(modality: Input) -> None:
    for shortest in range(modality.shape[0] + 1):
        lengths = torch.tensor([modality.shape[0], shortest])
        mask = valid_tokens(modality, modality.num_tokens, lengths)
        assert hides_nothing(modality, modality.num_tokens, lengths) == bool(mask.all())


@pytest.mark.parametrize("form", ["plain", "absorbed", "separable"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_that_hides_nothing_changes_no_bit(
    form: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = perturbed(Perceiver(dataclasses.replace(SMALL, cross_attend_form=form), seed=0).to(dtype))
    pixels, lengths = batch(SMALL, {"image": [6, 6]}).arrays, {"image": torch.tensor([6, 6])}
    results = []
    for look in (hides_nothing, lambda *_: False):
        monkeypatch.setattr("model.modalities.byte_array.hides_nothing", look)
        network.zero_grad(set_to_none=True)
        answer = network({"image": pixels["image"].to(dtype)}, lengths)["label"]
        answer.float().square().sum().backward()
        results.append([answer, *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(*both) for both in zip(*results, strict=True))


def perturbed(network: Perceiver) -> Perceiver:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return network


TEXT = PerceiverConfig(
    inputs={"text": TextInput(vocabulary=9, max_tokens=5, embedding_width=4), "image": IMAGE},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=3,
    latent_width=8,
    num_cross_attends=1,
    num_blocks=0,
)


def test_a_modality_that_is_whole_is_known_to_be_so_beside_one_that_is_not() -> None:
    ids, pixels = torch.zeros(2, 5, dtype=torch.int64), torch.rand(2, *IMAGE.shape)
    lengths = {"text": torch.tensor([5, 5]), "image": torch.tensor([6, 3])}
    tokens = Inputs(TEXT)({"text": ids, "image": pixels}, lengths, None, torch.float32)
    assert tokens.valid_of("text") is None
    hidden = tokens.valid_of("image")
    assert hidden is not None
    assert hidden.sum(dim=1).tolist() == [24, 12]


def test_a_text_that_is_padded_asks_nothing_beyond_its_end() -> None:
    text = TextInput(vocabulary=9, max_tokens=5, embedding_width=4)
    config = dataclasses.replace(TEXT, inputs={"text": text}, outputs={"text": TextOutput()})
    network = perturbed(Perceiver(config, seed=0))
    ids = torch.tensor([[1, 2, 3, 0, 0]])
    whole, padded = (network({"text": ids}, {"text": torch.tensor([length])})["text"] for length in (5, 3))
    assert not torch.allclose(whole[:, :3], padded[:, :3])
    assert not torch.allclose(whole[:, 3:], padded[:, 3:])


# ------------------------------------------------------------------------------------------------ widths of heads
def test_heads_that_need_no_padding_are_not_copied() -> None:
    parts = torch.rand(3, 2, 2, 5, 16).unbind()
    assert all(found is given for found, given in zip(padded_heads(*parts), parts, strict=True))


def test_self_attention_of_a_gpu_pads_nothing() -> None:
    config = dataclasses.replace(SMALL, inputs={"image": dataclasses.replace(IMAGE, num_channels=2)})
    assert config.token_width == 16
    network, pixels = Perceiver(config, seed=0).to("meta"), torch.empty(2, 6, 4, 2, device="meta")
    with Pads() as pads, Calls() as calls:
        network({"image": pixels})
    assert len(calls.widths) == 6
    assert pads.shapes == []


@pytest.mark.parametrize("form", ["plain", "absorbed"])
def test_heads_of_a_gpu_are_widened_by_their_weights(form: str) -> None:
    config = dataclasses.replace(SMALL, cross_attend_form=form)
    network, pixels = Perceiver(config, seed=0).to("meta"), torch.empty(3, *IMAGE.shape, device="meta")
    with Pads() as pads, Calls() as calls:
        network({"image": pixels})
    # 17 channels become 24; nothing that has the samples' axis is padded, so nothing as large as the activations.
    assert form == "absorbed" or (24, 24) in calls.widths
    assert pads.shapes
    assert all(3 not in shape[:1] and max(shape) <= 2 * 24 for shape in pads.shapes)


def rounded_up(width: int, _: torch.device, *, alignment: int) -> int:
    return -(-width // alignment) * alignment


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_widened_heads_give_equal_answers_and_gradients(
    heads: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = AttentionConfig(num_heads=heads, qk_width=heads * 5, value_width=heads * 7)
    layer = CrossAttend(16, 17, attention, "tanh").double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    queries, tokens = (torch.randn(2, n, c, generator=generator, dtype=torch.float64) for n, c in ((4, 16), (9, 17)))
    valid = torch.arange(9) < torch.tensor([[3], [9]]) if masked else None
    results = []
    for alignment in (1, 8):
        monkeypatch.setattr(model.attention.alignment, "aligned_width", partial(rounded_up, alignment=alignment))
        read = tokens.clone().requires_grad_()
        wide = model.attention.alignment.widened(normalised(read), -(-17 // alignment) * alignment)
        keys, values = layer.keys_values(wide)
        assert keys.shape[-1] == (5 if alignment == 1 else 8)
        assert values.shape[-1] == (7 if alignment == 1 else 8)
        layer.zero_grad(set_to_none=True)
        out = layer(queries, keys, values, valid)
        out.sin().sum().backward()
        results.append([out, read.grad, *(parameter.grad for parameter in layer.parameters())])
    for narrow, widened in zip(*results, strict=True):
        # Sums of some dozen float64 terms in another order.
        torch.testing.assert_close(widened, narrow, rtol=1e-11, atol=1e-12)


def test_tokens_become_aligned_in_the_pass_that_casts_them() -> None:
    values = torch.rand(2, 5, 17, device="meta", requires_grad=True)
    with Pads() as pads:
        wide = model.attention.alignment.aligned(values)
        (gradient,) = torch.autograd.grad(wide.sum(), values)
    assert wide.shape == (2, 5, 24)
    assert gradient.shape == values.shape
    assert pads.shapes == []
    there = torch.rand(2, 5, 17)
    assert model.attention.alignment.aligned(there) is there


@pytest.mark.parametrize(
    ("qk_width", "value_width", "masked", "widths"),
    [
        (32, 160, False, (160, 160)),  # one width for flash attention
        (32, 160, True, (32, 160)),  # which a mask rules out
        (29, 61, False, (64, 64)),
        (29, 61, True, (32, 64)),
    ],
)
def test_a_gpu_pads_what_lets_a_faster_kernel_run_and_no_more(
    qk_width: int, value_width: int, masked: bool, widths: tuple[int, int]
) -> None:
    q, k, v = (torch.empty(2, 1, 5, width, device="meta") for width in (qk_width, qk_width, value_width))
    valid = torch.empty(2, 5, dtype=torch.bool, device="meta") if masked else None
    with Calls() as calls:
        out = attend(q, k, v, valid)
    assert calls.widths == [widths]
    assert out.shape == (2, 1, 5, value_width)


# ------------------------------------------------------------------------------- what is hidden, modality by modality
POINTS = PointsInput(num_points=7, num_bands=2)
SPECTROGRAM = AudioInput(num_samples=6, num_channels=4, patch=1, patch_bins=1, positions=FEW)
VIDEO = VideoInput(num_frames=4, height=4, width=4, patch_frames=2, positions=FEW)
FRAMES = FlowInput(height=4, width=4, project_to=0, separate_frames=True, positions=FEW)
HIDING: dict[str, tuple[dict[str, Input], dict[str, int]]] = {
    "a recording that is short": ({"audio": AUDIO}, {"audio": 9}),
    "a spectrogram that is short": ({"spectrogram": SPECTROGRAM}, {"spectrogram": 5}),
    "a cloud of few points": ({"points": POINTS}, {"points": 6}),
    "a clip of few frames": ({"video": VIDEO}, {"video": 2}),
    "a text that is padded": ({"text": TextInput(vocabulary=9, max_tokens=5, embedding_width=4)}, {"text": 4}),
    "a second frame that is missing": ({"flow": FRAMES}, {"flow": 1}),
    "a modality that is dropped": ({"image": IMAGE, "audio": AUDIO}, {"audio": 0}),
    "rows below an image": ({"image": IMAGE}, {"image": 5}),
}


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("case", HIDING)
def test_what_is_hidden_is_not_read_and_a_gpu_is_given_its_mask(case: str, heads: int) -> None:
    modalities, short = HIDING[case]
    attention = AttentionConfig(num_heads=heads, qk_width=6)
    config = dataclasses.replace(SMALL, inputs=modalities, cross_attend=attention)
    whole = {name: modality.shape[0] for name, modality in modalities.items()}
    network = perturbed(Perceiver(config, seed=0))
    inputs = {name: torch.rand(2, *modality.shape) for name, modality in modalities.items()}
    inputs |= {"text": torch.tensor([[1, 2, 3, 4, 5]] * 2)} if "text" in modalities else {}
    answers = []
    for lengths in (whole, whole | short):
        counts = {name: torch.tensor([whole[name], length]) for name, length in lengths.items()}
        answers.append(network(inputs, counts)["label"])
        on_device = {name: value.to("meta") for name, value in inputs.items()}
        with Calls() as calls:
            Perceiver(config, seed=0).to("meta")(on_device, counts)
        masks = sum(mask is not None for mask in calls.masks)
        assert masks == (0 if lengths == whole else config.num_cross_attends)
    torch.testing.assert_close(answers[0][0], answers[1][0], rtol=0, atol=1e-6)
    assert (answers[0][1] - answers[1][1]).abs().max() > 1e-3


def test_latents_and_queries_are_all_there_and_never_get_a_mask() -> None:
    lengths = {"image": [6, 0], "audio": [24, 3]}
    num_reads = BOTH.num_cross_attends
    num_others = BOTH.num_blocks * BOTH.layers_per_block + 1
    masks = masks_on_a_gpu(BOTH, lengths)
    assert len(masks) == num_reads + num_others
    assert sum(mask is None for mask in masks) == num_others


def test_aligned_values_have_zeros_after_their_channels_whatever_the_memory_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def used(values: Tensor, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.full(shape, torch.nan, dtype=dtype)

    monkeypatch.setattr(Tensor, "new_empty", used)
    values = torch.arange(1.0, 11.0).view(2, 5).requires_grad_()
    found = model.attention.alignment._Aligned.apply(values, 8, torch.bfloat16)
    assert found.tolist() == [[1, 2, 3, 4, 5, 0, 0, 0], [6, 7, 8, 9, 10, 0, 0, 0]]
    assert found.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad((found.float() * torch.arange(16.0).view(2, 8)).sum(), values)
    assert gradient.tolist() == [[0, 1, 2, 3, 4], [8, 9, 10, 11, 12]]
    assert gradient.dtype == torch.float32


def test_arrays_are_aligned_to_eight_channels_where_it_helps() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    widths = [1, 7, 8, 9, 16]
    assert [aligned_width(width, gpu) for width in widths] == [8, 8, 8, 16, 16]
    assert [aligned_width(width, cpu) for width in widths] == widths
    values = torch.ones(2, 5)
    assert model.attention.alignment.widened(values, 5) is values
    assert model.attention.alignment.widened(values, 7).tolist() == [[1] * 5 + [0] * 2] * 2
