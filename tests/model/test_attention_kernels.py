"""Which kernel each attention takes on a GPU: PyTorch's rules, and what a GPU that is here says to them."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launch.networks.network_files import network_config
from model.attention.kernel_choice import (
    TILES,
    AttentionKernel,
    Gpu,
    Kernel,
    Precision,
    attention_kernels,
    given_widths,
    sdpa_kernel,
)
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.label import LabelOutput

PAPER = Path(__file__).parents[2] / "configs" / "paper"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and here is none")


@pytest.mark.parametrize(
    ("widths", "masked", "kernel"),
    [
        ((128, 128), False, "flash"),
        ((128, 128), True, "efficient"),
        ((256, 256), False, "flash"),
        ((264, 264), False, "efficient"),
        ((32, 160), False, "efficient"),
        ((261, 261), False, "math"),
    ],
)
def test_a_mask_and_wide_heads_rule_out_flash_attention(widths: tuple[int, int], masked: bool, kernel: Kernel) -> None:
    assert sdpa_kernel(widths, masked=masked) == kernel


def test_cudnn_comes_first_on_hopper_where_nothing_has_to_be_deterministic() -> None:
    free = Gpu(deterministic=False)
    assert sdpa_kernel((128, 128), masked=True, gpu=free) == "cudnn"
    assert sdpa_kernel((128, 128), masked=False, gpu=Gpu((8, 0), deterministic=False)) == "flash"
    assert sdpa_kernel((128, 128), masked=False, num_keys=1, gpu=free) == "flash"
    assert sdpa_kernel((160, 160), masked=False, gpu=free) == "flash"
    assert sdpa_kernel((128, 128), masked=False, precision="fp32", gpu=free) == "efficient"


@pytest.mark.parametrize(
    ("widths", "precision", "gpu", "kernel"),
    [
        ((4, 4), "fp32", Gpu(), "efficient"),
        ((6, 4), "fp32", Gpu(), "math"),
        ((4, 6), "fp32", Gpu(), "math"),
        ((8, 8), "fp16", Gpu(), "flash"),
        ((12, 8), "fp16", Gpu(), "math"),
        ((12, 8), "bf16", Gpu(), "math"),
        ((8, 8), "bf16", Gpu((7, 5)), "efficient"),
        ((12, 12), "bf16", Gpu((7, 5)), "math"),
        ((8, 8), "bf16", Gpu((7, 5), deterministic=False), "efficient"),
        ((8, 16), "bf16", Gpu((10, 0), deterministic=False), "cudnn"),
        ((8, 136), "bf16", Gpu(deterministic=False), "efficient"),
        ((12, 12), "bf16", Gpu(deterministic=False), "flash"),
        ((8, 8), "bf16", Gpu((8, 9), deterministic=False), "flash"),
        ((8, 8), "bf16", Gpu((12, 0), deterministic=False), "flash"),
    ],
)
def test_precision_alignment_and_generation_decide(
    widths: tuple[int, int], precision: Precision, gpu: Gpu, kernel: Kernel
) -> None:
    assert sdpa_kernel(widths, masked=False, precision=precision, gpu=gpu) == kernel


def test_two_keys_are_enough_for_cudnn() -> None:
    assert sdpa_kernel((8, 8), masked=False, num_keys=2, gpu=Gpu(deterministic=False)) == "cudnn"


def test_heads_are_given_one_width_where_flash_attention_can_follow() -> None:
    assert given_widths((32, 160), masked=False) == (160, 160)
    assert given_widths((32, 160), masked=True) == (32, 160)
    assert given_widths((64, 320), masked=False) == (64, 320)
    assert given_widths((261, 261), masked=True) == (264, 264)


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("p1", "separable", {"cross_attend": "Triton or tiles", "self_attend": "flash"}),
        ("p1", "plain", {"cross_attend": TILES, "self_attend": "flash"}),
        ("i7", "plain", {"cross_attend": "flash", "self_attend": "flash", "decoder": "flash"}),
        (
            "i10",
            "absorbed",
            {"cross_attend": "products by tiles", "self_attend": "flash", "decoder": "products by tiles"},
        ),
    ],
)
def test_the_attentions_of_the_papers_networks(name: str, form: str, expected: dict[str, str]) -> None:
    found = list(attention_kernels(network_config(PAPER / f"{name}.yaml"), form))
    assert {row.part: row.kernel for row in found} == expected
    assert all(bool(row.masked_kernel) == (row.part == "cross_attend") for row in found)


SMALL = PerceiverConfig(
    inputs={"image": ImageInput(height=4, width=4, positions=PositionsConfig(num_bands=3))},
    outputs={"label": LabelOutput(pooling="query")},
    num_latents=4,
    latent_width=24,
    cross_attend=AttentionConfig(num_heads=2, qk_width=24, value_width=40),
    self_attend=AttentionConfig(num_heads=3),
    decoder=DecoderConfig(cross_attend=AttentionConfig(num_heads=1, value_width=300)),
)


def test_each_attention_has_a_row_with_its_heads_widths_and_kernels() -> None:
    read = AttentionKernel("cross_attend", 2, (24, 24), "flash", "efficient")
    think = AttentionKernel("self_attend", 3, (8, 8), "flash", "")
    decode = AttentionKernel("decoder", 1, (24, 304), TILES, "")
    # Under a mask keys and values keep widths of their own, of whole multiples of eight.
    assert list(attention_kernels(SMALL, "plain")) == [read, think, decode]
    one_key = replace(SMALL, num_latents=1)
    free = Gpu(deterministic=False)
    found = list(attention_kernels(one_key, "plain", "fp16", free))
    # A single latent is a single key of the attention between the latents.
    assert [row.kernel for row in found] == ["cudnn", "flash", TILES]
    assert found[0].masked_kernel == "cudnn"
    assert [row.kernel for row in attention_kernels(SMALL, "plain", "fp32")] == ["efficient", "efficient", TILES]
    alone = replace(SMALL, num_blocks=0, outputs={"label": LabelOutput()})
    absorbed = AttentionKernel("cross_attend", 2, (12, 20), TILES, TILES)
    assert list(attention_kernels(alone, "absorbed")) == [absorbed]
    wide = replace(alone, cross_attend=AttentionConfig(num_heads=2, qk_width=2 * 257, value_width=8))
    assert list(attention_kernels(wide, "plain")) == [AttentionKernel("cross_attend", 2, (264, 8), TILES, TILES)]
    widest = replace(alone, cross_attend=AttentionConfig(num_heads=2, qk_width=2 * 256, value_width=8))
    assert list(attention_kernels(widest, "plain")) == [
        AttentionKernel("cross_attend", 2, (256, 256), "flash", "efficient")
    ]


def test_a_stream_reads_its_places_under_a_mask() -> None:
    words = TextInput(max_tokens=8, vocabulary=9, embedding_width=24)
    stream = replace(SMALL, inputs={"text": words}, outputs={"text": AutoregressiveOutput()})
    read, think = attention_kernels(stream, "plain")
    assert read == AttentionKernel("cross_attend", 2, (16, 24), "efficient", "efficient")
    assert think.kernel == "flash"


@needs_cuda
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_that_is_here_takes_what_the_rules_say(deterministic: bool) -> None:
    names = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}
    gpu = Gpu(torch.cuda.get_device_capability(), deterministic=deterministic)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for widths, masked in itertools.product([(64, 64), (128, 128), (160, 160), (264, 264), (32, 160)], [0, 1]):
            q, k, v = (torch.rand(2, 2, 64, w, device="cuda").bfloat16() for w in (widths[0], widths[0], widths[1]))
            mask = torch.ones(2, 1, 1, 64, dtype=torch.bool, device="cuda") if masked else None
            found = names[torch._fused_sdp_choice(q, k, v, mask)]
            assert found == sdpa_kernel(widths, masked=bool(masked), gpu=gpu), (widths, masked)
    finally:
        torch.use_deterministic_algorithms(before)
