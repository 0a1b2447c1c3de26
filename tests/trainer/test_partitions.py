"""What each rank holds of each parameter, at every ZeRO stage, read from layouts as DeepSpeed makes them."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from trainer.optim.lamb import Segment
from trainer.optim.partitions import EvenParameters, FlatGroups, Whole

A, B, C = (nn.Parameter(torch.full(shape, value)) for shape, value in (((2, 3), 1.0), ((4,), 2.0), ((3,), 3.0)))
NAMES: dict[Tensor, str] = {A: "a", B: "b", C: "c"}


def none(_: Tensor) -> Mapping[str, Tensor]:
    return {}


def doubled(master: Tensor) -> Mapping[str, Tensor]:
    return {"exp_avg": 2 * master.data}


def whole(rank: int) -> Whole:
    """Two groups, in another order than the network's."""
    optimizer = torch.optim.SGD([{"params": [B]}, {"params": [A, C]}], lr=0.1)
    return Whole(NAMES, optimizer, rank)


def fragment(parameter: nn.Parameter, of_parameter: int, in_cut: int, numel: int) -> None:
    parameter._hp_mapping = SimpleNamespace(  # type: ignore[attr-defined]
        lp_fragment_address=SimpleNamespace(start=of_parameter),
        hp_fragment_address=SimpleNamespace(start=in_cut, numel=numel),
    )


@pytest.fixture
def flat() -> FlatGroups:
    """The second of two ranks: half of group (a, c), and the end of group (b), of which it has one element."""
    cuts = [torch.arange(5.0), torch.arange(10.0, 12.0)]
    fragment(A, 5, 0, 1)
    fragment(C, 0, 1, 3)
    fragment(B, 3, 0, 1)
    padding = torch.full((1,), 100.0)
    padding._zero_padding = True  # type: ignore[attr-defined]
    zero = SimpleNamespace(
        single_partition_of_fp32_groups=cuts,
        bit16_groups=[[A, C], [B]],
        averaged_gradients={
            0: [torch.tensor([3.0]), torch.tensor([0.0, 4.0, 0.0])],
            1: [torch.tensor([12.0]), padding],
        },
        update_lp_params=lambda: None,
    )
    return FlatGroups(NAMES, zero)


def even(rank: int) -> EvenParameters:
    """Three ranks; a has 6 elements, c 3, and b 4, of which the second rank has one and the last none."""
    positions = {"a": (0, 0, 2), "b": (1, 0, 3), "c": (0, 2, 1)}
    for parameter, name in NAMES.items():
        parameter.ds_numel = parameter.numel()  # type: ignore[attr-defined]
        parameter.ds_name = name  # type: ignore[attr-defined]
    zero = SimpleNamespace(
        fp32_partitioned_groups_flat=[torch.arange(3.0), torch.arange(10.0, 13.0)],
        fp16_groups=[[A, C], [B]],
        get_param_id=lambda parameter: parameter.ds_name,
        grad_position=positions,
        sub_group_to_group_id={0: 1, 1: 0},
        optimizer=SimpleNamespace(param_groups=[{}, {}]),
    )
    return EvenParameters(NAMES, zero, rank)


def held(partitions: Whole | FlatGroups | EvenParameters, kind: str = "weight") -> list[tuple[str, int, list[float]]]:
    found = partitions.pieces(doubled if kind != "weight" else none)
    return [(piece.name, piece.start, piece.tensors[kind].tolist()) for piece in found]


def test_at_stage_0_every_rank_holds_every_parameter_and_the_first_tells_of_the_gradients() -> None:
    for parameter, gradient in ((A, 2.0), (B, None), (C, 3.0)):
        parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)
    for rank in (0, 1):
        partitions = whole(rank)
        assert [[NAMES[each] for each in group] for group in partitions.by_group()] == [["b"], ["a", "c"]]
        assert list(partitions.names_by_master().values()) == [["b"], ["a"], ["c"]]
        assert held(partitions) == [("b", 0, [2.0] * 4), ("a", 0, [1.0] * 6), ("c", 0, [3.0] * 3)]
        assert held(partitions, "exp_avg")[1] == ("a", 0, [2.0] * 6)
        # Numbered as in the network.
        assert partitions.segments() == {B: [Segment(1, 0, 4)], A: [Segment(0, 0, 6)], C: [Segment(2, 0, 3)]}
        assert [float(square) for square in partitions.gradient_squares()] == (
            [0.0, 6 * 4 + 3 * 9] if not rank else [0, 0]
        )
        assert [gradient.tolist() for gradient in partitions.gradients()] == [[[2.0] * 3] * 2, [3.0] * 3]
        assert float(partitions.gradient_norm(Tensor.clone)) == pytest.approx((6 * 4 + 3 * 9) ** 0.5)
    # What is written into a piece is written into the parameter.
    pieces = {piece.name: piece for piece in whole(0).pieces(none)}
    pieces["a"].tensors["weight"][5] = 9.0
    assert A[1, 2] == 9.0
    A.data[1, 2] = 1.0
    assert (pieces["a"].start, pieces["a"].stop) == (0, 6)


def test_at_stages_1_and_2_a_rank_holds_what_its_cut_has_of_each_parameter(flat: FlatGroups) -> None:
    first, second = flat.masters()
    assert flat.names_by_master() == {first: ["a", "c"], second: ["b"]}
    assert held(flat) == [("a", 5, [0.0]), ("c", 0, [1.0, 2.0, 3.0]), ("b", 3, [10.0])]
    assert held(flat, "exp_avg") == [("a", 5, [0.0]), ("c", 0, [2.0, 4.0, 6.0]), ("b", 3, [20.0])]
    assert flat.segments() == {first: [Segment(0, 0, 1), Segment(2, 1, 3)], second: [Segment(1, 0, 1)]}
    C._hp_mapping = None  # type: ignore[attr-defined]  # none of it lies in this cut
    assert [name for name, *_ in held(flat)] == ["a", "b"]
    assert flat.segments()[first] == [Segment(0, 0, 1)]


def test_at_stages_1_and_2_the_norm_is_that_of_all_parts_but_the_padding(flat: FlatGroups) -> None:
    assert len(flat.gradients()) == 4
    seen: list[list[float]] = []

    def total(squares: Tensor) -> Tensor:
        seen.append(squares.tolist())
        return squares + torch.tensor([0.0, 25.0])  # of the other rank

    assert float(flat.gradient_norm(total)) == pytest.approx((25 + 144 + 25) ** 0.5)
    assert seen == [[25.0, 144.0]], "one exchange for all groups"
    flat.zero.averaged_gradients[0] = []
    assert float(flat.gradient_norm(Tensor.clone)) == 12.0
    # In fp32 a square of 1 would be lost beside one of 2**24.
    flat.zero.averaged_gradients = {0: [torch.cat([torch.tensor([4096.0]), torch.ones(100_000)])], 1: []}
    assert float(flat.gradient_norm(Tensor.clone)) == pytest.approx((4096**2 + 100_000) ** 0.5, rel=1e-7)


def test_a_gradient_of_next_to_nothing_keeps_its_sign_and_its_length(flat: FlatGroups) -> None:
    for partitions in (whole(0), flat):
        factors = [float(partitions.clip_factor(torch.tensor(norm), 1.0)) for norm in (0.0, 5e-7, 1e-6)]
        assert factors == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("norm", "factor"), [(0.25, 1.0), (1.0, 1.0), (2.0, 0.25), (8.0, 1 / 16)])
def test_a_gradient_that_is_longer_than_the_most_is_scaled_down_to_it(
    flat: FlatGroups, norm: float, factor: float
) -> None:
    for partitions in (whole(0), flat):
        found = float(partitions.clip_factor(torch.tensor(norm), 0.5 if norm > 1 else 1.0))
        # As torch and DeepSpeed have it, 1e-6 is added to the norm.
        assert found == pytest.approx(factor, rel=2e-6)


@pytest.mark.parametrize(
    ("rank", "pieces"),
    [
        (0, [("a", 0, [0.0, 1.0]), ("c", 0, [2.0]), ("b", 0, [10.0, 11.0, 12.0])]),
        (1, [("a", 2, [0.0, 1.0]), ("c", 1, [2.0]), ("b", 3, [10.0])]),
        # Of b this rank has nothing but padding.
        (2, [("a", 4, [0.0, 1.0]), ("c", 2, [2.0])]),
        # The parts end where this rank's would begin.
        (3, []),
    ],
)
def test_at_stage_3_a_rank_holds_an_even_part_without_its_padding(
    rank: int, pieces: list[tuple[str, int, list[float]]]
) -> None:
    partitions = even(rank)
    assert held(partitions) == pieces
    first, second = partitions.masters()
    assert partitions.names_by_master() == {first: ["a", "c"], second: ["b"]}
    # Sub-groups of DeepSpeed's, by the group that they are of.
    assert [
        [part is of for part in group] for group, of in zip(partitions.by_group(), (second, first), strict=True)
    ] == [
        [True],
        [True],
    ]


def test_at_stage_3_the_squares_of_a_group_are_those_of_all_its_parts() -> None:
    partitions = even(0)
    partitions.zero.fp32_partitioned_groups_flat = [torch.zeros(1) for _ in range(4)]
    partitions.zero.sub_group_to_group_id = {0: 0, 1: 0, 2: 0, 3: 1}
    partitions.zero.averaged_gradients = {0: [torch.tensor([1.0, 2.0])], 1: [torch.tensor([3.0])] * 2, 2: None}
    assert [float(square) for square in partitions.gradient_squares()] == [5 + 9 + 9, 0.0]
    with pytest.raises(AssertionError, match="should have refused LAMB"):
        partitions.segments()


def test_at_stage_3_a_load_reaches_what_a_forward_pass_gathers() -> None:
    partitions, told = even(0), list[object]()
    gathered = [torch.zeros(3), torch.zeros(3)]
    small = SimpleNamespace(
        partition=lambda of: told.append(("cut", of)), all_gather=lambda of: told.append(("all", of))
    )
    partitions.zero.fp16_partitioned_groups_flat = [SimpleNamespace(data=each) for each in gathered]
    partitions.zero._unflatten_partitioned_parameters = told.append
    for every in ([], [small, "other"]):
        partitions.zero.persistent_parameters = every
        told.clear()
        partitions.refresh()
        assert [each.tolist() for each in gathered] == [[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]
        assert told == [0, 1, *([("cut", every), ("all", every)] if every else [])]
