"""All forms of reading give the same answers and gradients, and the config chooses the cheapest that it can have."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import model.attention.read_forms
from launch.networks.network_files import network_config
from model.attention.absorbed import grid_support
from model.attention.read_costs import READ_CONSTANTS
from model.attention.read_forms import read_costs, read_form, reading
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.measures.losses import cross_entropy_sum
from model.modalities.audio import AudioInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.video import VideoInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver

PAPER = Path(__file__).parents[2] / "configs" / "paper"
FEW = PositionsConfig(num_bands=3)
IMAGE = ImageInput(height=6, width=4, positions=FEW)
BASE = PerceiverConfig(
    inputs={"image": IMAGE},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=6,
    latent_width=16,
    num_cross_attends=3,
    num_blocks=3,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=4),
)
Form = Literal["plain", "absorbed", "separable"]


@pytest.fixture
def _float64() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def answers_and_gradients(config: PerceiverConfig, lengths: dict[str, Tensor] | None) -> dict[str, Tensor]:
    built = Perceiver(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    shapes = {name: (3, *modality.shape) for name, modality in config.ordered_inputs.items()}
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    logits = built(inputs, lengths)["label"]
    cross_entropy_sum(logits, torch.tensor([0, 1, 2]), torch.ones(3)).backward()
    found = {name: p.grad for name, p in built.named_parameters() if p.grad is not None}
    assert found.keys() == {name for name, _ in built.named_parameters()}
    return {**found, "logits": logits.detach()}


GRIDS = (
    {"image": IMAGE},
    {"image": dataclasses.replace(IMAGE, patch=2)},
    {"video": VideoInput(num_frames=4, height=4, width=6, patch_frames=2, patch=2, positions=FEW)},
    {"spectrogram": AudioInput(num_samples=4, num_channels=3, patch=1, patch_bins=1, positions=FEW)},
)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("inputs", "form"),
    [
        *((inputs, form) for inputs in GRIDS for form in ("absorbed", "separable")),
        # Joined modalities have no separable form.
        ({"image": IMAGE, "audio": AudioInput(num_samples=12, patch=4, positions=FEW)}, "absorbed"),
    ],
)
def test_forms_agree_in_all_gradients(inputs: dict[str, Input], form: Form, masked: bool) -> None:
    config = dataclasses.replace(BASE, inputs=inputs)
    rows = {name: modality.shape[0] for name, modality in inputs.items()}
    # The last sample has nothing at all.
    lengths = {name: torch.tensor([count, count // 2, 0]) for name, count in rows.items()} if masked else None
    expected = answers_and_gradients(dataclasses.replace(config, cross_attend_form="plain"), lengths)
    found = answers_and_gradients(dataclasses.replace(config, cross_attend_form=form), lengths)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-12, msg=name)


def test_autocast_holds_absorbed_tokens_in_its_precision_and_is_as_near_as_the_plain_form() -> None:
    inputs = {"image": IMAGE, "audio": AudioInput(num_samples=12, patch=4, positions=FEW)}
    config = dataclasses.replace(BASE, inputs=inputs)
    held: list[Tensor] = []

    def gradients(form: Form, *, autocast: bool) -> Tensor:
        given = dataclasses.replace(config, cross_attend_form=form)
        with (
            torch.autograd.graph.saved_tensors_hooks(
                lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor
            ),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            found = answers_and_gradients(given, None)
        return torch.cat([tensor.float().flatten() for tensor in found.values()])

    exact = gradients("plain", autocast=False)
    plain_error = (gradients("plain", autocast=True) - exact).norm()
    held.clear()
    absorbed_error = (gradients("absorbed", autocast=True) - exact).norm()
    assert 0 < absorbed_error < 2 * plain_error
    tokens = [tensor.dtype for tensor in held if tensor.shape == (3, config.num_tokens, config.token_width)]
    # What the norm reads stays float32; what each cross-attend reads does not.
    assert tokens.count(torch.bfloat16) == config.num_cross_attends


def test_the_cheapest_form_is_chosen() -> None:
    assert read_form(BASE) == "separable"
    assert read_form(dataclasses.replace(BASE, cross_attend_form="plain")) == "plain"
    many_heads = dataclasses.replace(BASE, cross_attend=AttentionConfig(num_heads=3, qk_width=6))
    assert read_form(many_heads) == "plain"
    projected = {"image": ImageInput(height=224, width=224, project_to=64)}
    assert read_form(PerceiverConfig(inputs=projected)) == "absorbed"
    # Keys and values much narrower than the tokens are cheaper to project than to leave out.
    narrow = dataclasses.replace(BASE, inputs=projected, cross_attend=AttentionConfig(qk_width=8), num_latents=512)
    costs = read_costs(narrow)
    assert costs["plain"] < costs["absorbed"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cross_attend": AttentionConfig(num_heads=3, qk_width=6)}, "needs cross_attend.num_heads=1, got 3"),
        (
            {"inputs": {"image": IMAGE, "other": IMAGE}},
            "needs one input on a grid",
        ),
        ({"inputs": {"image": ImageInput(height=4, width=4, project_to=8)}}, "needs tokens without parameters"),
        (
            {"inputs": {"image": ImageInput(height=4, width=4, positions=PositionsConfig(kind="none"))}},
            "needs Fourier positions",
        ),
    ],
)
def test_a_form_that_cannot_be_had_is_refused(change: dict[str, object], sentence: str) -> None:
    config = dataclasses.replace(BASE, cross_attend_form="separable", **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"cross_attend_form: {sentence}"):
        Perceiver(config, seed=0)


def products(*sizes: tuple[int, int, int]) -> int:
    """Operations of matrix products (rows, inner, columns): a multiplication and an addition each."""
    return sum(2 * rows * inner * columns for rows, inner, columns in sizes)


@pytest.mark.parametrize("learns", [False, True])
def test_costs_are_those_of_the_matrix_products_forward_and_backward(learns: bool) -> None:
    inputs = {"image": ImageInput(height=4, width=6, positions=FEW)}
    config = dataclasses.replace(
        BASE,
        inputs=inputs,
        mask_tokens=learns,
        cross_attend=AttentionConfig(qk_width=10),
        num_latents=7,
        num_cross_attends=5,
        share_cross_attends=True,
    )
    M, C, N, F = config.num_tokens, config.token_width, 7, 10
    # Keys and values: the product, and the gradients of the weights and of the tokens.
    projection = products((M, C, F), (C, M, F), (M, F, C))
    # Scores and shares times values; then the scores again, and the gradients of shares, values, queries and keys.
    attention = products((N, F, M), (N, M, F)) + products((N, F, M), (N, F, M), (M, N, F), (N, M, F), (M, N, F))
    costs = read_costs(config)
    assert costs["plain"] == 2 * 2 * projection + 5 * (attention + N * M * 230)
    # Of the latents alone: the projections of what is asked and of what was read.
    moved = 2 * products((N, F, C), (F, N, C), (N, C, F))
    reading = products((N, C, M), (N, M, C)) + products((N, C, M), (N, C, M), (N, M, C))
    tokens = products((M, N, C), (M, N, C)) if learns else 0
    assert costs["absorbed"] == 5 * (moved + reading + tokens + N * M * 230)
    # Sums along axes take the place of products with channels.
    assert costs.get("separable", 0) == (0 if learns else 5 * (moved + N * M * 320))


@pytest.mark.parametrize(
    ("changes", "cpu", "gpu"),
    [
        (
            {"cross_attend": AttentionConfig(qk_width=10, value_width=12)},
            {"plain": 273_600, "absorbed": 213_192, "separable": 178_632},
            {"plain": 672_768, "absorbed": 1_777_032, "separable": 830_952},
        ),
        (
            {"mask_tokens": True},
            {"plain": 368_640, "absorbed": 264_600},
            {"plain": 804_096, "absorbed": 1_828_440},
        ),
        ({"cross_attend": AttentionConfig(num_heads=2, qk_width=10)}, {"plain": 257_760}, {"plain": 650_880}),
        # Heads of up to 256 channels are flash attention's, wider ones of keys or of values are not.
        (
            {"cross_attend": AttentionConfig(qk_width=256)},
            {"plain": 4_154_400, "absorbed": 1_112_832, "separable": 1_078_272},
            {"plain": 6_035_328, "absorbed": 2_676_672, "separable": 1_730_592},
        ),
        *(
            (
                {"cross_attend": AttentionConfig(qk_width=keys, value_width=values)},
                {"plain": 2_166_480, "absorbed": 651_996, "separable": 617_436},
                {"plain": 3_985_200, "absorbed": 2_215_836, "separable": 1_269_756},
            )
            for keys, values in ((257, 4), (4, 257))
        ),
        ({"cross_attend": AttentionConfig(num_heads=2, qk_width=514)}, {"plain": 8_241_120}, {"plain": 10_059_840}),
    ],
)
def test_the_cost_of_each_form_on_each_kind_of_device(
    changes: dict[str, Any], cpu: dict[str, int], gpu: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.attention.read_forms, "kernel_problem", lambda *_: None)
    config = dataclasses.replace(BASE, **changes)
    assert (read_costs(config), read_costs(config, "cuda")) == (cpu, gpu)
    # Without a kernel the separable form goes tile by tile, in float32.
    monkeypatch.setattr(model.attention.read_forms, "kernel_problem", lambda *_: "none")
    scores = config.num_cross_attends * config.num_latents * config.num_tokens
    tiles = {"separable": gpu["separable"] + scores * (23_700 - 1_830)} if "separable" in gpu else {}
    assert read_costs(config, "cuda") == gpu | tiles


def paper(name: str) -> PerceiverConfig:
    return network_config(PAPER / f"{name}.yaml", ())


@pytest.mark.parametrize(
    ("name", "form"),
    [("p1", "separable"), ("i1", "separable"), ("i2", "absorbed"), ("i7", "plain"), ("i10", "absorbed")],
)
def test_the_forms_of_the_papers_networks(name: str, form: Form) -> None:
    assert read_form(paper(name)) == form


ON_A_CPU = {
    "separable": "i1 i1p p1 p1a_1 p1a_2 p1a_4 p1a_start p1c_12 p1c_4 p1c_8 p1n p3 p5 p6",
    "absorbed": "i10 i11 i12 i12_light i12_separate i13 i14 i14p i15 i15p i2 i2p i3 i3p i4 i5 p2 p4 p7 p7_mel p8",
    "plain": "i6 i7 i8 i8b_128 i8b_512 i9 i9_single",
}


def test_a_cpu_reads_the_papers_networks_as_it_did() -> None:
    forms = {name: form for form, names in ON_A_CPU.items() for name in names.split()}
    assert {path.stem: read_form(paper(path.stem)) for path in PAPER.glob("*.yaml")} == forms


def test_the_costs_on_a_gpu_are_made_of_its_own_constants() -> None:
    config = dataclasses.replace(BASE, cross_attend=AttentionConfig(qk_width=10), mask_tokens=False)
    scores = config.num_cross_attends * config.num_latents * config.num_tokens
    cpu, gpu = READ_CONSTANTS["cpu"], READ_CONSTANTS["cuda"]
    here, there = read_costs(config), read_costs(config, "cuda")
    F, V = config.cross_attend.widths(config.token_width)
    assert there["separable"] - here["separable"] == scores * (gpu.separable - cpu.separable)
    assert there["plain"] - here["plain"] == scores * (
        gpu.plain - cpu.plain + 7 * (F + V) * (gpu.plain_products - cpu.plain_products)
    )
    assert there["absorbed"] - here["absorbed"] == scores * (gpu.absorbed - cpu.absorbed)


# Tiles of scores go through a GPU's memory; what fused attention makes of keys and values does not.
LEARNED = dataclasses.replace(
    BASE, inputs={"image": ImageInput(height=20, width=20, positions=FEW)}, num_latents=16, mask_tokens=True
)


def test_a_network_reads_in_the_form_of_the_device_where_it_is() -> None:
    assert (read_form(LEARNED), read_form(LEARNED, "cuda")) == ("absorbed", "plain")
    network = Perceiver(LEARNED, seed=0)
    assert network.encoder.form == "absorbed"
    with FakeTensorMode():
        assert on_a_fake_gpu(network).encoder.form == "plain"


def on_a_fake_gpu(network: Perceiver) -> Perceiver:
    """The network with tensors that have a device and no numbers; PyTorch for CPUs cannot copy to it."""
    # One by one: Module._apply of PyTorch 2.9 leaves the parameters where they are.
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, device="cuda")))
    return network


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("3.6.0", "latents read the tokens in the separable form, by the kernel of Triton 3.6.0"),
        (None, "latents read the tokens in the separable form, by the kernel of Triton with PyTorch for CUDA"),
        (
            "2.1.0",
            "latents read the tokens in the absorbed form; the separable form has no kernel here: "
            "Triton 2.1.0 is older than 3.5",
        ),
    ],
)
def test_where_the_kernel_cannot_be_had_a_sentence_says_why(
    version: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_support, "triton_version", lambda: version)
    monkeypatch.setattr(model.attention.read_forms, "triton_version", lambda: version)
    # Looked up anew, and by those that come after, too.
    monkeypatch.setattr(grid_support, "missing", grid_support.missing.__wrapped__)
    assert reading(paper("p1"), "cuda") == sentence
    asked = dataclasses.replace(paper("p1"), cross_attend_form="separable")
    assert reading(asked, "cuda").startswith("latents read the tokens in the separable form")
    assert ("tile by tile: Triton 2.1.0 is older than 3.5" in reading(asked, "cuda")) == (version == "2.1.0")
    assert reading(paper("p1")) == "latents read the tokens in the separable form"


def test_heads_that_are_too_wide_for_flash_attention_cost_a_gpu_what_their_tiles_do() -> None:
    wide = paper("i4")
    assert wide.token_width > 256
    gpu, N, M, F = READ_CONSTANTS["cuda"], wide.num_latents, wide.num_tokens, wide.token_width
    assert read_costs(wide, "cuda")["plain"] == 12 * M * F**2 + N * M * (14 * F + gpu.wide)
    narrow = dataclasses.replace(wide, cross_attend=AttentionConfig(num_heads=2, qk_width=512))
    scores = N * M * (14 * 512 * gpu.plain_products + gpu.plain)
    assert read_costs(narrow, "cuda")["plain"] == 12 * M * F * 512 + scores
