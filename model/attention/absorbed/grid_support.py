"""Whether the kernel of grid_kernel.py supports separable tokens on a device, and if not, why.

Triton decides how a block is laid out over a GPU's threads, and each of its versions decides differently. The kernel is
fast only where each thread has one query. The compiled kernel is therefore checked before the first use, since a
change of kernels within a run would change its last bits.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from model.attention.absorbed.grid_tiles import tile_of

# The oldest whose compilations were looked at (docs/model.md).
OLDEST_TRITON = (3, 5)
# The oldest that Triton supports.
OLDEST_CAPABILITY = (8, 0)


def kernel_problem(device: torch.device, num_channels: int, num_queries: int) -> str | None:
    """Return why the kernel does not read tokens of so many channels of content on a device, or None if it does.

    Without a GPU here, as where a run is planned or tensors are fake, that is what can be known without one.
    """
    return missing(device) or spilled(device, num_channels, num_queries)


@cache
def missing(device: torch.device) -> str | None:
    """Return what the kernel needs and does not find, or None: Triton comes with PyTorch for CUDA alone."""
    found = triton_version()
    if found is not None and _release(found) < OLDEST_TRITON:
        return f"Triton {found} is older than {_dotted(OLDEST_TRITON)}"
    # Where a run is only planned, what the version of Triton says is all that can be known.
    if not torch.cuda.is_available():
        return None
    if found is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return (
            f"its compute capability {capability[0]}.{capability[1]} is below {'.'.join(map(str, OLDEST_CAPABILITY))}"
        )
    return None


@cache
def spilled(device: torch.device, num_channels: int, num_queries: int) -> str | None:
    """Return what is wrong with the kernel as Triton compiles it for a GPU that is here, or None."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    from model.attention.absorbed.grid_kernel import compiled, fault, kernel_shape

    shape = kernel_shape(tile_of(device), num_channels, num_queries)
    with torch.cuda.device(device):
        # Both directions at once: to give the kernel up in a backward pass would change the bits of a run in its
        # middle.
        for backward in (False, True):
            kernel = compiled(torch.cuda.get_device_capability(device), shape, backward=backward)
            kernel.run  # noqa: B018  # loads it, and so counts its spills
            if found := fault(kernel.metadata.shared, kernel.n_spills):
                return f"Triton {triton_version()} compiles the kernel {found}"
    return None


def triton_version() -> str | None:
    """Return the version of Triton, or None where it is not installed."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def _release(found: str) -> tuple[int, ...]:
    return tuple(int(part) for part in found.split(".")[:2])


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
