"""The constants of the cost model behind cross_attend_form=auto, printed as model/attention/read_costs.py has them."""

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu.clock import timed
from benchmarks.gpu.setting import Found, Setting
from model.attention.absorbed.grid_support import kernel_problem
from model.attention.absorbed.tiled import read_tokens
from model.attention.absorbed.token_sources import DenseTokens, GridTokens, SeparableTokens
from model.attention.dispatch import attend
from model.budget.hardware import HARDWARE
from model.positions import axis_features
from trainer.sinks.meter import measured_peak_flops


def measure(setting: Setting) -> Found:
    """Return the constants and what they were made of.

    The time of a score grows with its channels: of two widths, the slope says how much longer these products take than
    others, and the rest is the score's own.
    """
    dtype = torch.bfloat16 if setting.on_gpu else torch.float32
    rate = measured_peak_flops(setting.device, dtype)
    # Flash attention takes heads of up to 256 channels; wider ones are read by products of tiles.
    narrow, wide = ((16, 64), (16, 64)) if setting.is_tiny else ((64, 256), (264, 704))
    found: Found = {"rate_tflops": rate / 1e12, "rows": [], "shares": [_shares(setting, rate)]}

    def score_operations(form: str, width: int, work: Callable[[], object], scores: int) -> float:
        operations = timed(work, setting.device).milliseconds / 1e3 * rate / scores
        found["rows"].append({"form": form, "width": width, "operations_a_score": operations})
        setting.keep("constants", found)
        return operations

    # Forward and backward: seven products of queries by tokens with keys and with values, ten with tokens.
    ways = {
        "plain": (_attention(setting, dtype), narrow, 14),
        "wide": (_attention(setting, dtype), wide, 14),
        "absorbed": (_tiles(setting, dtype), wide, 10),
    }
    of = {
        form: _line([(products * width, score_operations(form, width, *work(width))) for width in widths])
        for form, (work, widths, products) in ways.items()
    }
    kinds = ["cuda", "cuda without kernel"] if setting.on_gpu else ["cpu"]
    if setting.on_gpu and kernel_problem(setting.device, 4, 512):
        kinds.remove("cuda")
    for kind in kinds:
        work, scores = _grid(setting)
        with patch("model.attention.absorbed.tiled._has_kernel", lambda *_, kind=kind: kind == "cuda"):
            separable = score_operations(f"separable on {kind}", 0, work, scores)
        found[kind] = (
            f'"{kind}": ReadConstants(plain={of["plain"][0]:_.0f}, absorbed={of["absorbed"][0]:_.0f}, '
            f"separable={separable:_.0f}, plain_products={of['plain'][1]:.2f}, "
            f"absorbed_products={of['absorbed'][1]:.2f}, wide={of['wide'][0]:_.0f}, "
            f"wide_products={of['wide'][1]:.2f}),"
        )
        print(found[kind], flush=True)
    return found


def _shares(setting: Setting, product_rate: float) -> Found:
    """Return which shares of the peaks in model/budget/hardware.py this device reaches."""
    name = next((name for name in HARDWARE if setting.on_gpu and name in torch.cuda.get_device_name()), "CPU")
    hardware = HARDWARE[name]
    elements = 2**20 if setting.is_tiny else 2**28
    one, other = (torch.zeros(elements, device=setting.device) for _ in range(2))
    host = torch.empty(elements, pin_memory=setting.on_gpu)
    # Read twice and written once; and, towards the host, copied once.
    memory_rate = 3 * one.nbytes / timed(lambda: torch.add(one, other, out=one), setting.device).milliseconds * 1e3
    host_rate = one.nbytes / timed(lambda: host.copy_(one, non_blocking=True), setting.device).milliseconds * 1e3
    peak = hardware.half_flops if setting.on_gpu else hardware.fp32_flops
    return {
        "hardware": name,
        "product_share": product_rate / peak,
        "memory_share": memory_rate / hardware.memory_bytes_per_second,
        "host_share": host_rate / hardware.host_bytes_per_second,
        "memory_tb_per_s": memory_rate / 1e12,
        "host_gb_per_s": host_rate / 1e9,
    }


def _line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Return where the line through two points begins, at 0 at the least, and its slope."""
    (first, low), (second, high) = points
    # Times waver: a slope below 0 would make wider heads free.
    slope = max((high - low) / (second - first), 0.01)
    return max(low - slope * first, 0.0), slope


Work = tuple[Callable[[], object], int]


def _sizes(setting: Setting) -> tuple[int, int, int]:
    """Samples, queries, tokens."""
    return (1, 16, 256) if setting.is_tiny else (16, 512, 50_176)


def _attention(setting: Setting, dtype: torch.dtype) -> Callable[[int], Work]:
    B, N, M = _sizes(setting)

    def of(width: int) -> Work:
        q, k, v = (
            torch.randn(B, 1, length, width, device=setting.device, dtype=dtype, requires_grad=True)
            for length in (N, M, M)
        )
        upstream = torch.randn_like(q)
        return lambda: torch.autograd.grad(attend(q, k, v), (q, k, v), upstream), B * N * M

    return of


def _tiles(setting: Setting, dtype: torch.dtype) -> Callable[[int], Work]:
    B, N, M = _sizes(setting)

    def of(width: int) -> Work:
        tokens = torch.randn(B, M, width, device=setting.device, dtype=dtype)
        return _step(setting, DenseTokens(tokens), (B, N, width), dtype), B * N * M

    return of


def _grid(setting: Setting) -> Work:
    B, N, M = _sizes(setting)
    side = round(M**0.5)
    tables = axis_features((side, side), 64, [float(side)] * 2, dtype=torch.float32)
    content = torch.randn(B, M, 3, device=setting.device)
    source = SeparableTokens(GridTokens(content, tuple(table.to(setting.device) for table in tables)))
    return _step(setting, source, (B, N, 3 + tables[0].shape[-1]), torch.float32), B * N * M


def _step(
    setting: Setting, source: DenseTokens | SeparableTokens, shape: tuple[int, ...], dtype: torch.dtype
) -> Callable[[], tuple[Tensor, ...]]:
    asked = torch.randn(shape, device=setting.device, dtype=dtype).mul_(0.05).requires_grad_()
    upstream = torch.randn_like(asked)
    return lambda: torch.autograd.grad(read_tokens(asked, source), asked, upstream)
