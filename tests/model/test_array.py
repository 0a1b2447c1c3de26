"""Arrays of any number of axes as tokens."""

import pytest
import torch

from model.budget.flops import network_cost
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver

FEW = PositionsConfig(num_bands=2)


def network(array: ArrayInput) -> Perceiver:
    config = PerceiverConfig(
        inputs={"eeg": array}, outputs={"label": LabelOutput(num_classes=3)}, num_latents=3, latent_width=8,
        num_cross_attends=1, num_blocks=1, layers_per_block=1, self_attend=AttentionConfig(num_heads=2),
    )  # fmt: skip
    return Perceiver(config, seed=0)


@pytest.mark.parametrize(
    ("array", "grid", "width"),
    [
        (ArrayInput(shape=(6, 4), positions=FEW), (6,), 4 + 5),
        (ArrayInput(shape=(4, 6), axes=("channel", "time"), positions=FEW), (6,), 4 + 5),
        (ArrayInput(shape=(6, 4), axes=("row", "column"), positions=FEW), (6, 4), 1 + 10),
        (ArrayInput(shape=(6, 4, 2), patch=(3, 2), positions=FEW), (2, 2), 12 + 10),
        (ArrayInput(shape=(2, 3, 4, 5), positions=PositionsConfig(kind="none")), (2, 3, 4), 5),
        (ArrayInput(shape=(6, 4), patch=(2,), project_to=7, positions=FEW), (3,), 7 + 5),
        (ArrayInput(shape=(6, 4), positions=PositionsConfig(kind="learned", learned_width=3)), (6,), 4 + 3),
    ],
)
def test_tokens_are_those_that_the_config_counts(array: ArrayInput, grid: tuple[int, ...], width: int) -> None:
    built = network(array)
    assert array.grid == grid
    values = torch.randn(2, *array.shape)
    tokens = built.inputs({"eeg": values}, None, None, torch.float32).values
    assert tokens.shape == (2, array.num_tokens, array.token_width) == (2, array.num_tokens, width)
    assert sum(part.parameters for part in network_cost(built.config).values()) == sum(
        parameter.numel() for parameter in built.parameters()
    )
    assert built({"eeg": values}, {"eeg": torch.tensor([1, array.shape[0]])})["label"].shape == (2, 3)


def test_a_token_is_a_box_in_row_major_order_with_its_channels_last() -> None:
    values = torch.arange(16.0).reshape(1, 2, 4, 2)
    one = network(ArrayInput(shape=(2, 4, 2), patch=(2, 2), positions=PositionsConfig(kind="none")))
    tokens = one.inputs({"eeg": values}, None, None, torch.float32).values
    assert tokens[0, 1].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]


def test_a_length_counts_along_the_first_axis() -> None:
    array = ArrayInput(shape=(6, 4), patch=(2,), positions=FEW)
    valid = network(array).inputs({"eeg": torch.zeros(1, 6, 4)}, {"eeg": torch.tensor([3])}, None, torch.float32).valid
    assert valid is not None
    assert valid[0].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("array", "keys"),
    [
        (ArrayInput(), ["shape"]),
        (ArrayInput(shape=(4,)), ["shape"]),
        (ArrayInput(shape=(4, 0)), ["shape"]),
        (ArrayInput(shape=(4, 2), axes=("a",)), ["axes"]),
        (ArrayInput(shape=(4, 2), patch=(1, 1)), ["patch"]),
        (ArrayInput(shape=(4, 2), patch=(0,)), ["patch"]),
        (ArrayInput(shape=(4, 2), patch=(3,)), ["shape"]),
        (ArrayInput(shape=(4, 2), positions=PositionsConfig(max_resolution=(3, 3))), ["positions.max_resolution"]),
        (ArrayInput(shape=(4,), axes=("time",)), []),
    ],
)
def test_a_problem_names_its_key(array: ArrayInput, keys: list[str]) -> None:
    assert [key for key, _ in array.problems()] == keys
