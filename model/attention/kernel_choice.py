"""The kernel that PyTorch chooses for each attention of a network on a GPU, by PyTorch's rules.

The rules are those of its aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, as far as this network can meet them:
no dropout, strides that all kernels take. They are what is expected; where a GPU is at hand,
benchmarks/gpu looks at what was called.

What `dispatch.attend` runs:

    device   a head's channels                            by
    CPU      equal for keys and values, in fp32           PyTorch
    CPU      of two widths, or in half precision          model.attention.cpu
    GPU      at most 256, with zeros to a multiple of 8   PyTorch: cuDNN, flash or, under a mask, memory-efficient
    GPU      more                                         model.attention.wide, tile by tile

    F channels of a head's queries and keys, V of its values
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from model.config.perceiver import PerceiverConfig

Kernel = Literal["cudnn", "flash", "efficient", "math"]
Precision = Literal["fp32", "bf16", "fp16"]

# Wider heads are refused by these kernels, in sdp_utils.cpp.
MOST_FLASH_CHANNELS = 256
MOST_CUDNN_CHANNELS = 128
# Channels that heads are a multiple of: 16 bytes.
ALIGNED_CHANNELS = {"fp32": 4, "bf16": 8, "fp16": 8}
# One for all precisions, so that the weights need not know in which one they will be multiplied.
WIDEST_ALIGNMENT = 8
# Of wide heads, and of the forms that read the tokens without scaled_dot_product_attention.
TILES = "products by tiles"
_OWN = {"absorbed": TILES, "separable": "Triton or tiles"}
# Generations in which PyTorch asks cuDNN first: Hopper and the large ones of Blackwell.
CUDNN_FIRST = (9, 10)


@dataclass(frozen=True)
class Gpu:
    """The properties of a GPU that decide which kernel is called."""

    capability: tuple[int, int] = (9, 0)
    """Its compute capability: (9, 0) of an H100 or H200, (8, 0) of an A100."""
    deterministic: bool = True
    """Whether deterministic algorithms are asked for: cuDNN's attention is none."""


@dataclass(frozen=True)
class AttentionKernel:
    """One attention of a network, on a GPU."""

    part: str
    """cross_attend, self_attend or decoder."""
    num_heads: int
    """Number of heads."""
    widths: tuple[int, int]
    """Channels of a head's queries and keys, and of its values, with the zeros that align them."""
    kernel: str
    """What runs where nothing is hidden."""
    masked_kernel: str
    """What runs where a mask hides something; empty where there is never a mask."""


def sdpa_kernel(
    widths: tuple[int, int], *, masked: bool, precision: Precision = "bf16", num_keys: int = 2, gpu: Gpu | None = None
) -> Kernel:
    """Return what scaled_dot_product_attention calls for heads of these widths."""
    gpu = gpu or Gpu()
    F, V = widths
    # Half precision alone: flash and cuDNN have no kernels for fp32, and none for GPUs before Ampere.
    is_half = precision != "fp32" and gpu.capability[0] >= 8
    is_aligned = not any(width % ALIGNED_CHANNELS[precision] for width in widths)
    asks_cudnn = gpu.capability[0] in CUDNN_FIRST and not gpu.deterministic and num_keys > 1
    if asks_cudnn and is_half and is_aligned and max(widths) <= MOST_CUDNN_CHANNELS:
        return "cudnn"
    if is_half and not masked and F == V <= MOST_FLASH_CHANNELS:
        return "flash"
    return "efficient" if is_aligned else "math"


def given_widths(widths: tuple[int, int], *, masked: bool) -> tuple[int, int]:
    """Return the channels in which heads of these widths are given to a GPU: multiples of eight.

    Flash attention wants one width. A mask rules it out, as wider heads do, and what then runs takes two.
    """
    F, V = (-(-width // WIDEST_ALIGNMENT) * WIDEST_ALIGNMENT for width in widths)
    return (F, V) if masked or max(F, V) > MOST_FLASH_CHANNELS else (max(F, V), max(F, V))


def attention_kernels(
    config: PerceiverConfig, form: str, precision: Precision = "bf16", gpu: Gpu | None = None
) -> Iterator[AttentionKernel]:
    """Yield the kernels of a network's attentions on a GPU, for this form of cross-attention to the tokens."""
    N, D = config.num_latents, config.latent_width
    parts = {"cross_attend": (config.cross_attend, config.token_width, config.num_tokens)}
    parts |= {"self_attend": (config.self_attend, D, N)} if config.num_blocks else {}
    parts |= {"decoder": (config.decoder.cross_attend, D, N)} if config.decoder_width else {}
    for part, (attention, default_width, num_keys) in parts.items():
        F, V = (width // attention.num_heads for width in attention.widths(default_width))
        if part == "cross_attend" and form != "plain":
            yield AttentionKernel(part, attention.num_heads, (F, V), _OWN[form], _OWN[form])
            continue
        if max(F, V) > MOST_FLASH_CHANNELS:
            masked_kernel = TILES if part == "cross_attend" else ""
            yield AttentionKernel(part, attention.num_heads, given_widths((F, V), masked=True), TILES, masked_kernel)
            continue
        kernels = [
            sdpa_kernel(
                given_widths((F, V), masked=masked), masked=masked, precision=precision, num_keys=num_keys, gpu=gpu
            )
            for masked in (False, True)
        ]
        # Only tokens can be hidden: latents are all there, and kernels hide later ones themselves.
        masked_kernel = kernels[1] if part == "cross_attend" else ""
        is_masked = bool(config.stream) and part == "cross_attend"
        widths, kernel = given_widths((F, V), masked=is_masked), kernels[is_masked]
        yield AttentionKernel(part, attention.num_heads, widths, kernel, masked_kernel)
