"""The latents' blocks alone: how near their products come to what the GPU can do, and what lies between them."""

from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.clock import PEAK_FLOPS, synchronise, timed
from benchmarks.gpu.operations import operations
from benchmarks.gpu.setting import Found, Setting
from benchmarks.gpu.subjects import Step
from model.encoder import Block
from trainer.config import TrainConfig
from trainer.engine import arithmetic

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def measure(setting: Setting) -> Found:
    """Return a row for each batch: six layers of the first paper's network, forward and backward in bf16."""
    arithmetic.apply(TrainConfig(), setting.device)
    found: Found = {"rows": []}
    for batch in setting.batches():
        found["rows"].append(_row(setting, batch, compiled=False))
        setting.keep("blocks", found)
    if not setting.is_tiny:
        found["rows"].append(_row(setting, setting.batches()[0], compiled=True))
    return found


def _row(setting: Setting, batch: int, *, compiled: bool) -> Found:
    step = _step(setting, batch, compiled=compiled)
    # Counted of the step that is not compiled: within compiled code no operation has a name.
    counted = operations(_step(setting, batch, compiled=False))
    products = sum(flops for name, flops in counted.items() if f"aten::{name}" in PRODUCTS)
    timing = timed(step, setting.device)
    row: Found = {
        "batch": batch,
        "compiled": compiled,
        "ms": timing.milliseconds,
        "share_of_peak": sum(counted.values()) / timing.milliseconds * 1e3 / PEAK_FLOPS,
    }
    milliseconds = _product_ms(setting, step)
    return {
        **row,
        "product_ms": milliseconds,
        "product_share_of_peak": products / milliseconds * 1e3 / PEAK_FLOPS if milliseconds else None,
    }


def _step(setting: Setting, batch: int, *, compiled: bool) -> Step:
    config = replace(setting.config("p1"), compile=compiled)
    block = Block(config).to(setting.device)
    for parameter in block.parameters():
        # Parameters of a network are drawn when the whole is built; a block alone would multiply what was in memory.
        torch.nn.init.normal_(parameter, std=0.02)
    shape = (batch, config.num_latents, config.latent_width)
    latents = torch.randn(shape, device=setting.device, requires_grad=True)
    upstream = torch.randn_like(latents)

    def step() -> None:
        with torch.autocast(setting.device.type, torch.bfloat16):
            out = block(latents, [None] * len(block))
        out.backward(upstream.to(out.dtype))
        block.zero_grad(set_to_none=True)

    return step


def _product_ms(setting: Setting, step: Step) -> float:
    """Milliseconds of the step in which matrix products run."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.on_gpu else [])]
    with profile(activities=activities) as seen:
        step()
        synchronise(setting.device)
    events = [event for event in seen.key_averages() if event.key in PRODUCTS]
    times = (event.self_device_time_total if setting.on_gpu else event.self_cpu_time_total for event in events)
    return float(sum(times)) / 1e3
