"""Precision and determinism: what a device computes in, and that it computes the same bits each time.

Process-wide settings of torch, made once, before the device is used. On a CPU nothing is set: every kernel there gives
the same bits each time, and TF32 does not exist. See docs/decisions/7-a-gpu-gives-the-same-bits.md.
"""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from trainer.config import TrainConfig

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES = (":4096:8", ":16:8")
"""The settings with which cuBLAS promises the same bits; the first is as fast as its own."""


def resolved(train: TrainConfig, device_type: str) -> TrainConfig:
    """Return the configuration with the precision that `auto` means on such a device."""
    if train.precision != "auto":
        return train
    return replace(train, precision="bf16" if device_type == "cuda" else "fp32")


def local_device_type() -> str:
    """Return where this machine would train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare(train: TrainConfig, environment: MutableMapping[str, str] = os.environ) -> None:
    """Put into the environment what cuBLAS reads when CUDA starts; ValueError where the user's own value rules it out.

    To be called before anything touches a GPU.
    """
    if not train.deterministic:
        return
    chosen = environment.setdefault(WORKSPACE, _WORKSPACES[0])
    if chosen not in _WORKSPACES:
        raise ValueError(
            f"train.deterministic = true needs {WORKSPACE} = {' or '.join(_WORKSPACES)}, the environment has "
            f"{chosen}; unset it, or set train.deterministic=false in a new run"
        )


def apply(train: TrainConfig, device: torch.device) -> None:
    """Make torch compute on a GPU as the configuration says."""
    if device.type != "cuda":
        return
    # Of the attention kernels, flash and memory-efficient have a deterministic backward pass, which they take under
    # this flag, and not where it only warns; that of cuDNN has none and is not chosen.
    torch.use_deterministic_algorithms(train.deterministic)
    # Nothing here reads memory that it did not write: filling it first would be one more pass over all of it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = train.deterministic
    # It tries several algorithms and takes the fastest, which may be another one after a restart.
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("high" if train.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = train.tf32


def sentence(train: TrainConfig, device: torch.device) -> str:
    """Return what the user should know of the arithmetic before the first step."""
    if device.type != "cuda":
        return f"computes in {train.precision} on the CPU, where every kernel is deterministic"
    products = "fp32 products in TF32" if train.tf32 else "fp32 products in fp32"
    kernels = "deterministic kernels" if train.deterministic else "kernels that may differ in the last bits each time"
    return f"computes in {train.precision} on {device}, {products}, {kernels}"


@contextmanager
def refusing_by_name() -> Iterator[None]:
    """Turn torch's refusal of an operation that has no deterministic form into a sentence for the user."""
    try:
        yield
    # torch has no class of its own for this refusal: its text is all that tells it from other errors.
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise ValueError(
            f"train.deterministic = true, but {operation.split()[-1]} has no deterministic form on this device, and a "
            "resumed run would not give the same bits; leave it out of the network, or set train.deterministic=false "
            "in a new run"
        ) from error
