"""What the machine is: card, versions, commit, the rate of products, and which attention kernel PyTorch calls."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.setting import ROOT, Found, Setting
from model.attention.kernel_choice import Gpu, Precision, sdpa_kernel
from trainer.sinks.meter import measured_peak_flops

PACKAGES = ("torch", "triton", "deepspeed", "transformers", "numpy")
# Of heads: those of latents, of a grid's tokens as the weights pad them, of wider tokens.
WIDTHS = (32, 64, 128, 160, 256, 264, 328, 512, 704, 1024)


def measure(setting: Setting) -> Found:
    """Return the facts."""
    found: Found = {
        "commit": commit(),
        "python": sys.version.split()[0],
        "card": torch.cuda.get_device_name() if setting.on_gpu else "no GPU",
        **{name: installed(name) for name in PACKAGES},
    }
    if setting.on_gpu:
        found |= {
            "capability": list(torch.cuda.get_device_capability()),
            "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "nccl": list(torch.cuda.nccl.version()),  # type: ignore[no-untyped-call]
        }
    for dtype in (torch.float32, torch.bfloat16):
        rate = measured_peak_flops(setting.device, dtype)
        found[f"product_tflops_{'fp32' if dtype == torch.float32 else 'bf16'}"] = rate / 1e12
    setting.keep("facts", found)
    found["attention"] = [
        row
        for dtype in (torch.bfloat16, torch.float32)
        for width in (WIDTHS[:2] if setting.is_tiny else WIDTHS)
        for masked in (False, True)
        for row in [attention(setting, dtype, width, masked=masked)]
    ]
    return found


def commit() -> str:
    """Return the measured commit; a machine without Git has it in the variable COMMIT."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or os.environ.get("COMMIT", "unknown")


def installed(name: str) -> str:
    """Return the version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def attention(setting: Setting, dtype: torch.dtype, width: int, *, masked: bool) -> Found:
    """Return which kernel scaled_dot_product_attention calls, and which is expected by PyTorch's rules."""
    N, M = (64, 128) if setting.is_tiny else (512, 4096)
    precision: Precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    queries, tokens = (
        torch.randn(2, 1, length, width, device=setting.device, dtype=dtype, requires_grad=True) for length in (N, M)
    )
    mask = torch.ones(2, 1, 1, M, dtype=torch.bool, device=setting.device) if masked else None
    row: Found = {"precision": precision, "width": width, "mask": masked}
    # Both, since cuDNN's attention is not used under deterministic algorithms.
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                read = scaled_dot_product_attention(queries, tokens, tokens, attn_mask=mask)
                torch.autograd.grad(read.sum(), (queries, tokens))
            names = {e.key for e in seen.key_averages() if "_scaled_dot_product_" in e.key and "backward" not in e.key}
            short = {name.partition("_scaled_dot_product_")[2].replace("_attention", "") for name in names}
            called = ",".join(sorted(short)) or "math"
        except RuntimeError as error:
            called = f"{error}"[:80]
        finally:
            torch.use_deterministic_algorithms(False)
        row["deterministic" if deterministic else "free"] = called
    if setting.on_gpu:
        gpu = Gpu(torch.cuda.get_device_capability())
        row["expected"] = sdpa_kernel((width, width), masked=masked, precision=precision, num_keys=M, gpu=gpu)
    return row
