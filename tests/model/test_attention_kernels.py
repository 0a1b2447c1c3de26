"""Which kernel each attention takes on a GPU: PyTorch's rules, and what a GPU that is here says to them."""

import itertools
from pathlib import Path

import pytest
import torch

from launch.networks.network_files import network_config
from model.attention.kernel_choice import TILES, Gpu, Kernel, attention_kernels, given_widths, sdpa_kernel

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
