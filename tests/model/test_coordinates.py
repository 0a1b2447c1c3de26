"""Arrays whose cells lie at coordinates that each sample gives."""

from dataclasses import replace

import pytest
import torch

from model.budget.flops import network_cost
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.outputs.points import PointsOutput
from model.perceiver import Perceiver
from model.positions import fourier_features, grid_places

FEW = PositionsConfig(num_bands=3, max_resolution=(6, 4))
GIVEN = ArrayInput(shape=(6, 4, 2), positions=FEW, num_axes=2)


def network(array: ArrayInput) -> Perceiver:
    config = PerceiverConfig(
        inputs={"field": array}, outputs={"again": PointsOutput(target="field", coordinates="field.coordinates")},
        num_latents=3, latent_width=8, num_cross_attends=1, num_blocks=1, layers_per_block=1,
        self_attend=AttentionConfig(num_heads=2),
    )  # fmt: skip
    assert list(config.problems()) == []
    return Perceiver(config, seed=0)


def test_cells_at_the_places_of_their_grid_are_the_tokens_of_the_grid() -> None:
    values, lengths = torch.randn(2, 6, 4, 2), {"field": torch.tensor([6, 2])}
    places = grid_places((6, 4)).view(6, 4, 2).expand(2, -1, -1, -1)
    given, on_grid = network(GIVEN), network(replace(GIVEN, num_axes=0))
    tokens = given.inputs({"field": values, "field.coordinates": places}, lengths, None, torch.float32)
    expected = on_grid.inputs({"field": values}, lengths, None, torch.float32)
    assert tokens.values.shape == (2, GIVEN.num_tokens, GIVEN.token_width)
    torch.testing.assert_close(tokens.values, expected.values, rtol=0, atol=1e-5)
    assert tokens.valid is not None
    assert expected.valid is not None
    assert torch.equal(tokens.valid, expected.valid)
    assert sum(part.parameters for part in network_cost(given.config).values()) == sum(
        parameter.numel() for parameter in given.parameters()
    )


def test_a_field_is_asked_at_the_coordinates_of_an_input() -> None:
    built = network(ArrayInput(shape=(5, 1), positions=FEW, num_axes=2, project_to=4))
    places = 2 * torch.rand(2, 5, 2) - 1
    inputs = {"field": torch.randn(2, 5, 1), "field.coordinates": places}
    answer = built(inputs)["again"]
    assert answer.shape == (2, 5, 1)
    # The order of cells that bring their coordinates does not matter, and that of the answers follows them.
    turned = {name: value.flip(1) for name, value in inputs.items()}
    torch.testing.assert_close(built(turned)["again"].flip(1), answer, rtol=0, atol=1e-5)
    assert not torch.allclose(built({**inputs, "field.coordinates": -places})["again"], answer)


def test_coordinates_keep_their_digits_in_half_precision() -> None:
    adapter = replace(GIVEN, positions=PositionsConfig(num_bands=2, max_resolution=(2_000, 2_000))).adapter()
    places = torch.rand(1, 6, 4, 2)
    half = adapter(torch.zeros(1, 6, 4, 2), torch.bfloat16, places)[..., 2:]
    exact = fourier_features(places.flatten(1, 2), 2, [2_000.0, 2_000.0])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, exact.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"patch": (2, 2)}, "patch"),
        ({"positions": PositionsConfig(kind="learned")}, "positions.kind"),
        ({"positions": PositionsConfig(kind="none")}, "positions.kind"),
        ({"positions": PositionsConfig(max_resolution=(4,))}, "positions.max_resolution"),
        ({"num_axes": -1}, "num_axes"),
    ],
)
def test_a_problem_of_given_coordinates_names_its_key(change: dict[str, object], key: str) -> None:
    assert [name for name, _ in replace(GIVEN, **change).problems()] == [key]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (None, r"inputs\.field\.coordinates: expected \(batch, 6, 4, 2\), got none"),
        (torch.zeros(2, 6, 4, 3), r"expected \(batch, 6, 4, 2\), got \(2, 6, 4, 3\)"),
        (torch.full((2, 6, 4, 2), torch.nan), r"inputs\.field\.coordinates: .*NaN"),
    ],
)
def test_a_batch_with_wrong_coordinates_is_one_sentence(places: torch.Tensor | None, words: str) -> None:
    config = PerceiverConfig(inputs={"field": GIVEN}, outputs={"far": PointsOutput(coordinates="other")})
    inputs = {"field": torch.zeros(2, 6, 4, 2), "other": torch.zeros(2, 3, 2)}
    inputs |= {} if places is None else {"field.coordinates": places}
    from model.checks import check_inputs

    with pytest.raises(ValueError, match=words):
        check_inputs(config, inputs)


def test_places_with_other_axes_and_values_with_other_channels_are_told_by_the_key_that_counts_them() -> None:
    answer = PointsOutput(target="field", coordinates="at", num_axes=3, num_channels=2)
    assert [key for key, _ in answer.input_problems("at", (9, 2))] == ["num_axes"]
    assert [key for key, _ in answer.input_problems("field", (9, 3))] == ["num_channels"]
    assert list(answer.input_problems("at", (9, 3))) == list(answer.input_problems("field", (9, 2))) == []
    [(_, sentence)] = answer.input_problems("at", (9,))
    assert sentence == "is 3, but data.inputs.at delivers (9,); make them agree"
