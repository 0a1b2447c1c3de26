"""Softmax attention by the kernel that suits the device, the widths of the heads and what is hidden.

B samples, H heads, N queries, M keys, K channels of a head's queries and keys, V of its values
n: N, or 1 where all queries see the same keys; b: B, or 1 where all samples do
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from model.attention.alignment import widened
from model.attention.cpu import cpu_attention, hidden_of_heads
from model.attention.kernel_choice import MOST_FLASH_CHANNELS, given_widths
from model.attention.wide import wide_attention


def attend(
    q_BHNK: Float[Tensor, "B H N K"],
    k_BHMK: Float[Tensor, "B H M K"],
    v_BHMV: Float[Tensor, "B H M V"],
    valid: Bool[Tensor, "B M"] | Bool[Tensor, "b n M"] | None = None,
    scale: float | None = None,
    *,
    causal: bool = False,
) -> Float[Tensor, "B H N V"]:
    """Return softmax(scale q kᵀ) v over the valid keys, by default 1 / sqrt(K); a sample with no valid key gets 0.

    Heads that have zeros after their channels want the scale of the others. `valid` may differ from query to query, and
    every query then has one; `causal` hides the keys after each query, the last of which sees all.
    """
    if causal:
        assert valid is None, "a causal attention takes no further mask"
        N, M = q_BHNK.shape[2], k_BHMK.shape[2]
        # One query, as in generation, is the last and sees all keys.
        valid = None if N == 1 else causal_mask(N, M, q_BHNK.device)
        return _softmax_attention(q_BHNK, k_BHMK, v_BHMV, valid, scale, square=valid is not None and N == M)
    if valid is None or valid.dim() == 3:
        return _softmax_attention(q_BHNK, k_BHMK, v_BHMV, valid, scale)
    some_B = valid.any(dim=1)
    # Without a key softmax is 0/0, and zeroing it afterwards leaves NaN in the gradients: such samples see every key.
    seen_BM = valid | ~some_B[:, None]
    out: Tensor = _softmax_attention(q_BHNK, k_BHMK, v_BHMV, seen_BM[:, None], scale)
    return out * some_B[:, None, None, None]


def causal_mask(N: int, M: int, device: torch.device) -> Bool[Tensor, "1 N M"]:
    """Return which keys each query sees where the queries are the last of the keys' places."""
    return torch.ones(1, N, M, dtype=torch.bool, device=device).tril(M - N)


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, valid_bnM: Tensor | None, scale: float | None, *, square: bool = False
) -> Tensor:
    """Attention over the valid keys; `square` says that they are those up to each query, for which kernels need no
    mask."""
    width, value_width = q.shape[-1], v.shape[-1]
    scale = scale or width**-0.5
    # Which kernel runs for what: model/attention/kernel_choice.py has the table.
    if q.device.type == "cpu" and (width != value_width or q.dtype in (torch.bfloat16, torch.float16)):
        return cpu_attention(q, k, v, valid_bnM, scale)
    mask = None if valid_bnM is None or square else valid_bnM[:, None]
    if q.device.type != "cpu":
        q, k, v = padded_heads(q, k, v, masked=mask is not None)
    if q.device.type != "cpu" and max(q.shape[-1], v.shape[-1]) > MOST_FLASH_CHANNELS:
        return _wide(q, k, v, valid_bnM, scale)[..., :value_width]
    out: Tensor = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=square, scale=scale)
    return out if out.shape[-1] == value_width else out[..., :value_width]


def _wide(q: Tensor, k: Tensor, v: Tensor, valid_bnM: Tensor | None, scale: float) -> Tensor:
    num_samples, num_heads = q.shape[:2]
    hidden = None if valid_bnM is None else hidden_of_heads(valid_bnM, num_samples, num_heads)
    out: Tensor = wide_attention(*(part.flatten(0, 1) for part in (q, k, v)), hidden, scale)
    return out.view(num_samples, num_heads, *out.shape[1:])


def padded_heads(q: Tensor, k: Tensor, v: Tensor, *, masked: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return heads of the widths that fused kernels take, as model.attention.kernel_choice has them; themselves if so.

    Zeros change no score and add no value; the scale stays that of the true width.
    """
    qk_width, value_width = given_widths((q.shape[-1], v.shape[-1]), masked=masked)
    return widened(q, qk_width), widened(k, qk_width), widened(v, value_width)
