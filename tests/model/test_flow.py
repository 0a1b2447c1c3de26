"""Optical flow: features at a quarter of the side, RAFT's upsampling, and frames larger than the network's."""

import dataclasses
from math import exp

import pytest
import torch
from torch import Tensor

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.flow import FlowInput
from model.outputs.flow import FlowOutput
from model.outputs.modules.flow_tiles import tiled_flow
from model.outputs.modules.heads import UpsamplingHead
from model.perceiver import Perceiver

# Sums of some dozen float64 terms in another order.
TOLERANCE = 1e-12
F64 = torch.float64
# Nine rows and thirteen columns: SAME padding makes three and four of them, and the last are cut.
STEM = FlowInput(height=9, width=13, conv_stem=True, project_to=0, positions=PositionsConfig(num_bands=3))
CONFIG = PerceiverConfig(
    inputs={"flow": FlowInput(height=4, width=6, project_to=5, positions=PositionsConfig(num_bands=3))},
    outputs={"flow": FlowOutput()},
    decoder=DecoderConfig(output_width=8),
    num_latents=6,
    latent_width=16,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=4),
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def network(flow: FlowInput) -> Perceiver:
    built = Perceiver(dataclasses.replace(CONFIG, inputs={"flow": flow}), seed=0).double().eval()
    with torch.no_grad():
        for index, parameter in enumerate(built.parameters()):
            parameter += 0.1 * random(*parameter.shape, seed=index)
    return built


def test_upsampling_equals_a_loop_over_pixels_and_neighbours() -> None:
    height, width, channels, factor, divisor = 9, 13, 5, 4, 7.0
    rows, columns = 3, 4
    upsampling = UpsamplingHead(channels, (height, width), factor, divisor).double()
    weights = {name: random(*tensor.shape, seed=8) for name, tensor in upsampling.state_dict().items()}
    upsampling.load_state_dict(weights)
    decoded = random(2, rows * columns, channels, seed=9)
    cells = decoded.view(2, rows, columns, channels).tolist()
    share_weight, share_bias = weights["shares.weight"].tolist(), weights["shares.bias"].tolist()
    value_weight, value_bias = weights["values.weight"].tolist(), weights["values.bias"].tolist()

    def cell(sample: int, row: int, column: int) -> list[float]:
        inside = 0 <= row < rows and 0 <= column < columns
        return cells[sample][row][column] if inside else [0.0] * channels

    def motion(sample: int, row: int, column: int, axis: int) -> float:
        if not (0 <= row < rows and 0 <= column < columns):
            return 0.0
        products = (w * x for w, x in zip(value_weight[axis], cell(sample, row, column), strict=True))
        return factor * (sum(products) + value_bias[axis]) / divisor

    expected = torch.zeros(2, height, width, 2, dtype=F64)
    for sample, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(height), torch.arange(width)).tolist():
        around = [(y // factor + dy, x // factor + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        seen = [value for place in around for value in cell(sample, *place)]
        pixel = factor * (y % factor) + x % factor
        scores = [
            sum(w * s for w, s in zip(share_weight[16 * k + pixel], seen, strict=True)) + share_bias[16 * k + pixel]
            for k in range(9)
        ]
        total = sum(exp(score) for score in scores)
        for axis in range(2):
            parts = (exp(s) / total * motion(sample, *at, axis) for s, at in zip(scores, around, strict=True))
            expected[sample, y, x, axis] = sum(parts)
    torch.testing.assert_close(upsampling(decoded, whole=True), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("separate", [False, True])
def test_a_quarter_of_the_side_is_read_and_every_pixel_is_answered(separate: bool) -> None:
    flow = dataclasses.replace(STEM, separate_frames=separate)
    built = network(flow)
    assert flow.grid == ((2, 3, 4) if separate else (3, 4))
    assert flow.token_width == 64 + (3 if separate else 2) * 7
    frames = random(2, 2, 9, 13, 3)
    tokens = built.inputs({"flow": frames}, None, None, F64)
    assert tokens.values.shape == (2, flow.num_tokens, flow.token_width)
    stem = built.get_submodule("inputs.adapters.flow.stem")
    seen = frames[:, 1] if separate else torch.cat([frames[:, 0], frames[:, 1]], dim=-1)
    torch.testing.assert_close(tokens.values[:, -12:, :64], stem(seen).flatten(1, 2), rtol=0, atol=TOLERANCE)
    assert built({"flow": frames})["flow"].shape == (2, 9, 13, 2)


def test_decoding_in_chunks_changes_nothing_and_single_cells_are_refused() -> None:
    built, frames = network(STEM), {"flow": random(1, 2, 9, 13, 3)}
    torch.testing.assert_close(built(frames, chunk=5), built(frames), rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"points\.flow: expected none"):
        built(frames, points={"flow": torch.tensor([0])})


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_a_length_of_two_frames_is_a_whole_pair(separate: bool, stem: bool) -> None:
    flow = dataclasses.replace(STEM, separate_frames=separate, conv_stem=stem)
    built, frames = network(flow), {"flow": random(3, 2, 9, 13, 3)}
    with_lengths = built(frames, {"flow": torch.tensor([2, 2, 0])})["flow"]
    # The last sample only pads the batch: with its mask, attention runs over all.
    torch.testing.assert_close(with_lengths[:2], built(frames)["flow"][:2], rtol=0, atol=TOLERANCE)
    assert with_lengths[2].isfinite().all()


def test_large_frames_are_the_tiles_of_the_network_weighted_by_the_distance_to_their_edge() -> None:
    tile = CONFIG.inputs["flow"]
    assert tile is not None
    built, frames = network(tile), random(2, 2, 7, 11, 3)
    with torch.no_grad():
        found = tiled_flow(lambda part: built({"flow": part})["flow"], frames, (4, 6), min_overlap=2)
        expected = torch.zeros(2, 7, 11, 2, dtype=F64)
        answers = {
            (top, left): built({"flow": frames[:, :, top : top + 4, left : left + 6]})["flow"]
            for top in (0, 2, 3)
            for left in (0, 2, 5)
        }
        alone = built({"flow": frames[:, :, :4, :6]})["flow"]
        same = tiled_flow(lambda part: built({"flow": part})["flow"], frames[:, :, :4, :6], (4, 6))
    for y in range(7):
        for x in range(11):
            total = 0.0
            for (top, left), answer in answers.items():
                if top <= y < top + 4 and left <= x < left + 6:
                    weight = min(y - top, top + 3 - y, x - left, left + 5 - x) + 1
                    expected[:, y, x] += weight * answer[:, y - top, x - left]
                    total += weight
            expected[:, y, x] /= total
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(same, alone, rtol=0, atol=TOLERANCE)
