"""What is made beside an input is made where the input is. PyTorch's device "meta" stands for a GPU: it has no numbers.

An array on the host would not meet one on a device: the operation fails, here as there.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.attention.absorbed.tiled import _to_shares
from model.attention.dispatch import causal_mask
from model.attention.rotary import angles, rotated, token_angles
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.interop.onnx_export import _valid
from model.measures.quality import average_precision, peak_signal_to_noise
from model.modalities.adapters.conv_stem import AveragedNorm
from model.modalities.array import ArrayInput
from model.modalities.byte_array import Tokens, valid_tokens
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.modules.flow_tiles import tiled_flow
from model.positions import cell_places
from model.stream import StreamLatents, last_places
from model.training.dropout import dropped, kept, layer_draws

META = torch.device("meta")
TEXT = TextInput(max_tokens=6, embedding_width=8)
ARRAY = ArrayInput(shape=(6, 2), positions=PositionsConfig(num_bands=2))
STREAM = PerceiverConfig(
    inputs={"text": TEXT}, outputs={"text": AutoregressiveOutput()}, num_latents=4, latent_width=8, num_blocks=1
)


def there(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device=META, dtype=dtype)


def stream_latents(*, is_padded: bool) -> Tensor:
    valid = there(2, 6, dtype=torch.bool) if is_padded else None
    latents = StreamLatents(STREAM).to(META)
    found, tokens = latents(Tokens(there(2, 6, 8), valid, {"text": (0, 6)}), there(2, 6, dtype=torch.bool))
    assert tokens.valid is not None
    assert tokens.latents_at is not None
    assert tokens.valid.device == tokens.latents_at.device == META
    return found


def averages() -> Tensor:
    norm = AveragedNorm(5).to(META)
    norm.average(there(), there(5), there(5), is_kept=True)
    assert norm.running_mean is not None
    return norm.running_mean


MADE: dict[str, Callable[[], Tensor]] = {
    "angles": lambda: angles((3, 4), 5, META),
    "angles of several inputs": lambda: token_angles([((3, 4), 12), ((5,), 4)], 5, META),
    "turned": lambda: rotated(there(2, 3, 12, 11), angles((3, 4), 5, META)),
    "causal mask": lambda: causal_mask(3, 5, META),
    "valid tokens": lambda: valid_tokens(ImageInput(height=4, width=4), 16, there(2, dtype=torch.int64)),
    "places of cells": lambda: cell_places(there(3, dtype=torch.int64), (4, 5), dtype=torch.float32),
    "last places": lambda: last_places(there(2, dtype=torch.int64), 4),
    "latents of a stream": lambda: stream_latents(is_padded=False),
    "latents of a padded stream": lambda: stream_latents(is_padded=True),
    "averages": averages,
    "dropped": lambda: dropped(
        there(2, 3, 4), layer_draws(there(2, 2, dtype=torch.int64), 3, drop_path=0.5)[-1], 0, 0.5
    ),
    "kept": lambda: kept(there(2, dtype=torch.int64), 3, 4, 0.5),
    "average precision": lambda: average_precision(there(9, 3), there(9, 3, dtype=torch.bool)),
    "noise": lambda: peak_signal_to_noise(there(2, 3), there(2, 3), peak=1.0),
    "tiles of a flow": lambda: tiled_flow(
        lambda part: there(len(part), 4, 6, 2), there(1, 2, 7, 11, 3), (4, 6), min_overlap=2
    ),
    "lengths of a text": lambda: _valid(TEXT, there(2, 6, dtype=torch.int64), there(2, dtype=torch.int64), 0),
    "lengths of an array": lambda: _valid(ARRAY, there(2, 6, 2), there(2, dtype=torch.int64), 0),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_beside_an_input_is_made_where_it_is(name: str) -> None:
    assert MADE[name]().device == META


def test_angles_have_the_digits_of_far_places() -> None:
    found = angles((50_001,), 2, torch.device("cpu"))
    assert found.dtype == torch.float64
    assert found[50_000].tolist() == [50_000.0, pytest.approx(500.0, rel=1e-12)]


def test_a_total_of_shares_in_half_precision_is_counted_in_float32() -> None:
    scores = torch.zeros(1, 1, 301, dtype=torch.bfloat16)
    top, total = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
    _to_shares(scores, top, total, None)
    # In bfloat16 no number lies between 300 and 302.
    assert total.item() == 301
