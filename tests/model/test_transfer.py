"""Of given weights a network takes what fits; what does not is listed and drawn, and nothing scrambles."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.initial_weights import InitialWeightsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from model.transfer import Meaning, _resized, other_frequencies, table_grids, transfer

ALL = InitialWeightsConfig(source="x")
TABLE = "inputs.adapters.image.positions.learned.weight"


def network(side: int = 4, classes: int = 3, latents: int = 4, seed: int = 0, *, width: int = 0) -> Perceiver:
    positions = PositionsConfig(kind="learned", learned_width=8)
    config = PerceiverConfig(
        inputs={"image": ImageInput(height=side, width=width or side, positions=positions)},
        outputs={"label": LabelOutput(num_classes=classes)},
        num_latents=latents,
        latent_width=16,
        num_cross_attends=1,
        num_blocks=1,
        layers_per_block=1,
        self_attend=AttentionConfig(num_heads=2),
    )
    return Perceiver(config, seed=seed)


def test_all_that_fits_is_taken_to_the_bit_and_another_head_is_drawn() -> None:
    source, target = network(classes=3, seed=1), network(classes=5, seed=2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    found = transfer(target, source.state_dict(), table_grids(source), ALL)
    assert found.drawn == {
        "decoder.means.label.logits.weight": "(3, 16) there, (5, 16) here",
        "decoder.means.label.logits.bias": "(3,) there, (5,) here",
    }
    assert found.unused == tuple(sorted(found.drawn))
    target.load_state_dict(found.weights, strict=False)
    for name, tensor in target.state_dict().items():
        expected = before if name in found.drawn else source.state_dict()
        assert torch.equal(tensor, expected[name]), name


def test_what_is_dropped_is_drawn_although_it_fits() -> None:
    source, target = network(seed=1), network(seed=2)
    found = transfer(target, source.state_dict(), {}, replace(ALL, drop=("decoder.*",)))
    assert set(found.drawn.values()) == {"dropped"}
    assert all(name.startswith("decoder.") for name in found.drawn)


@pytest.mark.parametrize(("pair", "is_one"), [("old.=new.", True), ("old.", False), ("a=b=c", False)])
def test_a_renaming_has_one_old_and_one_new_beginning(pair: str, is_one: bool) -> None:
    sentence = f"expected OLD=NEW, got {pair!r}"
    found = list(InitialWeightsConfig(source="x", rename=(pair,)).problems())
    assert found == ([] if is_one else [("rename", sentence)])


def test_names_are_renamed_by_their_longest_beginning_and_never_two_to_one() -> None:
    source, target = network(seed=1), network(seed=2)
    renamed = {name.replace("encoder.", "trunk."): tensor for name, tensor in source.state_dict().items()}
    found = transfer(target, renamed, {}, replace(ALL, rename=("trunk.=encoder.", "trunk.latents=no.latents")))
    assert list(found.drawn) == ["encoder.latents.weight"]
    assert found.unused == ("no.latents.weight",)
    with pytest.raises(ValueError, match=r"of both trunk.latents.weight and old.latents.weight"):
        transfer(
            target,
            renamed | {"old.latents.weight": renamed["trunk.latents.weight"]},
            {},
            replace(ALL, rename=("trunk.=encoder.", "old.=encoder.")),
        )


def test_a_source_of_which_nothing_fits_is_refused_with_a_name_of_each() -> None:
    with pytest.raises(ValueError, match=r"none of its 1 tensors fits: the first is a, this network's is .*rename"):
        transfer(network(), {"a": torch.zeros(2)}, {}, ALL)


@pytest.mark.parametrize(
    ("wanted", "kind", "reason"),
    [
        (replace(ALL, drop=("*",)), torch.float32, "dropped; drop fewer"),
        (ALL, torch.int32, "int32 there, float32 here"),
    ],
)
def test_a_source_with_the_same_names_is_refused_with_what_is_wrong_and_not_with_a_renaming(
    wanted: InitialWeightsConfig, kind: torch.dtype, reason: str
) -> None:
    weights = {name: tensor.to(kind) for name, tensor in network().state_dict().items()}
    with pytest.raises(ValueError, match=f"tensors fits: {TABLE}: {reason}") as refused:
        transfer(network(), weights, {}, wanted)
    assert "rename" not in str(refused.value)


def test_positions_are_interpolated_along_their_grid_and_its_ends_stay_its_ends() -> None:
    source, target = network(side=4, seed=1), network(side=7, seed=2)
    ramp = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).reshape(16, 2)
    with torch.no_grad():
        source.get_parameter(TABLE)[:, :2] = ramp
    assert TABLE in transfer(target, source.state_dict(), table_grids(source), ALL).drawn, "only where it is asked for"
    found = transfer(target, source.state_dict(), table_grids(source), replace(ALL, resize=True))
    assert found.resized == (TABLE,)
    steps = torch.arange(7.0) / 2
    expected = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(49, 2)
    # Interpolation of a ramp is the ramp; float32.
    assert torch.allclose(found.weights[TABLE][:, :2], expected, atol=1e-6)
    without_grid = transfer(target, source.state_dict(), {}, replace(ALL, resize=True))
    assert TABLE in without_grid.drawn, "16 rows alone do not say that they are 4 x 4"


@pytest.mark.parametrize(("here", "kept"), [(2, 2), (9, 4)])
def test_latents_are_a_set_of_which_the_first_are_taken_and_more_are_as_drawn(here: int, kept: int) -> None:
    source, target = network(latents=4, seed=1), network(latents=here, seed=2)
    name = "encoder.latents.weight"
    found = transfer(target, source.state_dict(), table_grids(source), replace(ALL, resize=True))
    assert found.resized == (name,)
    assert torch.equal(found.weights[name][:kept], source.get_parameter(name)[:kept])
    assert torch.equal(found.weights[name][kept:], target.get_parameter(name)[kept:])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"drop": ("decodr.*",)}, r"initial_weights.drop: decodr.\* matches no tensor of this network; .* encoder."),
        ({"rename": ("trunk.=encoder.",)}, "initial_weights.rename: no tensor of the source begins with trunk."),
    ],
)
def test_what_drops_or_renames_nothing_is_refused(fields: dict[str, tuple[str, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        transfer(network(), network().state_dict(), {}, replace(ALL, **fields))


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    source = network(seed=1).state_dict()
    source[TABLE][3, 2] = torch.nan
    with pytest.raises(ValueError, match=rf"{TABLE}: holds NaN or infinity; .* initial_weights.drop"):
        transfer(network(), source, {}, ALL)
    assert TABLE in transfer(network(), source, {}, replace(ALL, drop=(TABLE,))).drawn
    # A number that the precision of the network cannot hold is none in it.
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        transfer(network(), {TABLE: torch.full((16, 8), 1e300, dtype=torch.float64)}, {}, ALL)


def test_whole_numbers_are_no_weights() -> None:
    source = network(seed=1).state_dict()
    found = transfer(network(), source | {TABLE: torch.ones(16, 8, dtype=torch.int8)}, {}, ALL)
    assert found.drawn == {TABLE: "int8 there, float32 here"}


def test_a_grid_that_is_not_that_of_the_table_resizes_nothing() -> None:
    source, target = network(side=4, seed=1), network(side=7, seed=2)
    assert TABLE in transfer(target, source.state_dict(), {TABLE: (9, 9)}, replace(ALL, resize=True)).drawn


def test_as_many_places_of_another_grid_are_other_places() -> None:
    source, target = network(side=4, width=9, seed=1), network(side=6, seed=2)
    grids = table_grids(source)
    assert transfer(target, source.state_dict(), grids, ALL).drawn == {TABLE: "(4, 9) there, (6, 6) here"}
    found = transfer(target, source.state_dict(), grids, replace(ALL, resize=True))
    assert found.resized == (TABLE,)
    corners = [source.get_parameter(TABLE)[row] for row in (0, 8, 27, 35)]
    assert torch.equal(found.weights[TABLE][[0, 5, 30, 35]], torch.stack(corners))


def test_a_table_has_its_grid_under_its_new_name_too() -> None:
    source, target = network(side=4, seed=1), network(side=7, seed=2)
    other = {name.replace("adapters.image", "adapters.photo"): each for name, each in source.state_dict().items()}
    grids = {TABLE.replace("adapters.image", "adapters.photo"): (4, 4)}
    rename = ("inputs.adapters.photo=inputs.adapters.image",)
    assert transfer(target, other, grids, replace(ALL, resize=True, rename=rename)).resized == (TABLE,)


def fourier(side: int, **positions: Any) -> PerceiverConfig:  # noqa: ANN401
    """A network that reconstructs an image, and has a learned table beside."""
    return PerceiverConfig(
        inputs={
            "image": ImageInput(height=side, width=8, positions=PositionsConfig(num_bands=2, **positions)),
            "table": ImageInput(height=side, width=8, positions=PositionsConfig(kind="learned")),
        },
        outputs={"again": GridOutput(target="image", positions=PositionsConfig(num_bands=2, **positions))},
    )


def test_on_another_grid_fourier_features_have_other_frequencies_unless_their_resolution_is_given() -> None:
    assert other_frequencies(fourier(8), fourier(16)) == {
        "model.inputs.image.positions.max_resolution": ((8, 8), (16, 8)),
        "model.outputs.again.positions.max_resolution": ((8, 8), (16, 8)),
    }
    assert other_frequencies(fourier(8), fourier(8, max_resolution=(8, 8))) == {}
    assert other_frequencies(fourier(8), fourier(16, max_resolution=(8, 8))) == {}
    assert other_frequencies(fourier(8), fourier(16, kind="learned")) == {}
    # A plug-in's module makes positions of its own.
    own, other = (replace(fourier(side), network=object()) for side in (8, 16))
    assert other_frequencies(own, other) == {}


LATENTS = "encoder.latents.weight"


def test_rows_are_brought_to_their_order_here_and_what_means_something_else_is_drawn() -> None:
    source, target = network(seed=1), network(seed=2)
    meaning = Meaning(foreign={LATENTS: "other latents"}, rows={TABLE: [3, *range(15)]})
    found = transfer(target, source.state_dict(), table_grids(source), ALL, meaning)
    assert found.drawn == {LATENTS: "other latents"}
    assert found.unused == (LATENTS,)
    assert torch.equal(found.weights[TABLE], source.get_parameter(TABLE)[[3, *range(15)]])
    # What is dropped is told so, whatever it means.
    both = replace(ALL, drop=("encoder.lat*",))
    assert transfer(target, source.state_dict(), {}, both, meaning).drawn == {LATENTS: "dropped"}


def test_weights_of_half_precision_are_taken_in_that_of_the_network() -> None:
    source = {name: each.bfloat16() for name, each in network(side=4, latents=4, seed=1).state_dict().items()}
    target = network(side=7, latents=9, seed=2)
    found = transfer(target, source, {TABLE: (4, 4)}, replace(ALL, resize=True))
    assert sorted(found.resized) == [LATENTS, TABLE]
    assert {each.dtype for each in found.weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("rows", "grid", "old_grid", "expected"),
    [
        # A set: the first rows, and after them those that are there.
        (2, (), None, [0.0, 1.0, -1.0]),
        (5, (), (5,), [0.0, 1.0, 2.0]),
        # One axis says its grid by its rows.
        (5, (3,), None, [0.0, 2.0, 4.0]),
        (5, (3,), (5,), [0.0, 2.0, 4.0]),
        (2, (3,), None, [0.0, 0.5, 1.0]),
        # Two and three axes do not.
        (4, (1, 3), None, None),
        (4, (1, 3), (1, 4), [0.0, 1.5, 3.0]),
        (4, (1, 3), (2, 2), [0.0, 0.5, 1.0]),
        (4, (1, 3), (4,), None),
        (4, (1, 3), (1, 5), None),
        (4, (1, 1, 3), (1, 1, 4), [0.0, 1.5, 3.0]),
        (4, (1, 1, 1, 3), (1, 1, 1, 4), None),
        # No table.
        (5, None, (5,), None),
    ],
)
def test_a_table_is_resized_where_its_grid_says_how(
    rows: int, grid: tuple[int, ...] | None, old_grid: tuple[int, ...] | None, expected: list[float] | None
) -> None:
    given = torch.arange(float(rows))[:, None].expand(-1, 2)
    own = torch.full((3, 2), -1.0)
    found = _resized(given, own, grid, old_grid)
    assert (None if found is None else found.tolist()) == (None if expected is None else [[at] * 2 for at in expected])
    assert _resized(given[:, :1], own, grid, old_grid) is None
    assert _resized(given[:, 0], own, grid, old_grid) is None


def test_all_that_is_no_number_is_counted() -> None:
    source = network(seed=1).state_dict()
    names = (LATENTS, "decoder.means.label.logits.bias")
    broken = {name: torch.full_like(source[name], torch.inf) for name in names}
    with pytest.raises(ValueError, match=r"^encoder\.latents\.weight and 1 more: holds NaN"):
        transfer(network(), source | broken, table_grids(network()), ALL)
