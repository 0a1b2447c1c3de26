"""What an optimizer keeps is found, told and made again: tensors like the weights, others, numbers, changed options."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.distributed.world import World
from trainer.optim.kept_state import KeptMoments, KeptState, kept_by

ALONE = World(0, 1, 0, torch.device("cpu"))


class Checkpoint:
    """The tensors of a checkpoint, in memory."""

    def __init__(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.tensors = tensors

    def __call__(self, kind: str, name: str, start: int, stop: int, /) -> Tensor:
        return self.tensors[kind][name].reshape(-1)[start:stop]

    def kinds(self) -> set[str]:
        return set(self.tensors)

    def like(self, kind: str) -> Mapping[str, Tensor]:
        return {name: torch.empty_like(tensor, device="meta") for name, tensor in self.tensors[kind].items()}


def two() -> tuple[KeptState, torch.optim.Optimizer, nn.Parameter, nn.Parameter]:
    """Return the state of an optimizer of a matrix p and a vector q, each a tensor of its own."""
    p, q = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(3))
    inner = torch.optim.SGD([p, q], lr=0.1)
    names = {p: ["p"], q: ["q"]}
    return KeptState(inner, names, {"p": p.shape, "q": q.shape}, ALONE, is_cut=False), inner, p, q


def flat(*names: str) -> tuple[KeptState, torch.optim.Optimizer, nn.Parameter]:
    """Return the state of an optimizer of one flat tensor with two elements of each of these parameters."""
    master = nn.Parameter(torch.zeros(2 * len(names)))
    inner = torch.optim.SGD([master], lr=0.1)
    shapes = {name: torch.Size([2]) for name in names}
    return KeptState(inner, {master: list(names)}, shapes, ALONE, is_cut=True), inner, master


def record(inner: torch.optim.Optimizer, **fields: Any) -> dict[str, Any]:  # noqa: ANN401  # any field
    options: list[dict[str, Any]] = [{} for _ in inner.param_groups]
    return {"type": "SGD", "numbers": {}, "on_host": [], "options": options, **fields}


def test_a_state_is_told_by_what_can_be_cut_what_cannot_and_numbers() -> None:
    kept, inner, p, q = two()
    assert (kept.kinds(), kept.whole()) == ({}, {})
    inner.state[p] = {"moved": torch.ones(2, 3), "rows": torch.ones(2), "count": 4, "scale": torch.tensor(0.5)}
    inner.state[q] = {"moved": torch.ones(3, dtype=torch.float64), "count": (5, 6)}
    inner.param_groups[0] |= {"momentum": 0.75, "lr": 9.0}
    assert [list(kept.beside(master)) for master in (p, q)] == [["moved"], ["moved"]]
    assert kept.kinds() == {"moved": torch.float64}, "the type of the last"
    whole = {kind: {name: tensor.tolist() for name, tensor in of.items()} for kind, of in kept.whole().items()}
    assert whole == {"rows": {"p": [1.0, 1.0]}, "scale": {"p": 0.5}}
    assert kept.record() == {
        "type": "SGD",
        "numbers": {"count": {"p": 4, "q": {"$tuple": [5, 6]}}},
        "on_host": ["moved", "rows", "scale"],
        # The rate is that of the schedule.
        "options": [{"momentum": 0.75}],
    }


@pytest.mark.parametrize("is_cut", [True, False])
def test_all_ranks_walk_the_kinds_in_one_order_however_a_load_has_made_them(is_cut: bool) -> None:
    # A load makes them in the order of a set: in every process another one, and with it the ranks would exchange the
    # momenta of one kind for those of another.
    p = nn.Parameter(torch.zeros(2))
    inner = torch.optim.SGD([p], lr=0.1)
    kept = KeptState(inner, {p: ["p"]}, {"p": p.shape}, ALONE, is_cut=is_cut)
    for order in ("abc", "cba", "bca"):
        inner.state[p] = {kind: torch.zeros(2) for kind in order}
        assert list(kept.kinds()) == ["a", "b", "c"]


def test_what_is_told_of_a_tensor_is_a_copy() -> None:
    kept, inner, p, _ = two()
    inner.state[p] = {"rows": torch.ones(2)}
    told = kept.whole()["rows"]["p"]
    inner.state[p]["rows"] += 1
    assert told.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["weight", "ema", "1st", "a-b", "äther", "", 5])
def test_a_name_that_no_file_has_is_refused(name: object) -> None:
    for shape in ((2, 3), (2,)):
        kept, inner, p, _ = two()
        inner.state[p] = {name: torch.ones(shape)}
        with pytest.raises(ValueError, match="names its state"):
            kept.kinds() if len(shape) == 2 else kept.whole()


def test_state_of_something_else_and_a_number_that_json_cannot_hold_are_refused() -> None:
    kept, inner, p, _ = two()
    inner.state[p] = {"count": {1, 2}}
    with pytest.raises(ValueError, match=r"optimizer\.state count: is of type set"):
        kept.record()
    inner.state.clear()
    inner.state[nn.Parameter(torch.zeros(1))] = {"count": 1}
    with pytest.raises(ValueError, match=r"SGD keeps state of something that is no parameter$"):
        kept.record()


def test_a_flat_tensor_keeps_the_same_kinds_for_all_and_one_number_for_its_parts() -> None:
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    inner = torch.optim.SGD([p, q], lr=0.1)
    shapes = {"p": p.shape, "q": q.shape}
    for is_cut in (True, False):
        kept = KeptState(inner, {p: ["p"], q: ["q"]}, shapes, ALONE, is_cut=is_cut)
        inner.state[p] = {"moved": torch.ones(2), "beta": torch.tensor([0.5])}
        inner.state[q] = {"beta": torch.tensor([0.5])}
        assert kept.whole()["beta"].keys() == {"p", "q"}
        if not is_cut:
            assert kept.kinds() == {"moved": torch.float32}
            continue
        with pytest.raises(ValueError, match=r"SGD keeps other tensors for some .*; take train\.zero_stage=0"):
            kept.kinds()
        inner.state[q] = {"moved": torch.ones(2), "rows": torch.ones(3)}
        with pytest.raises(ValueError, match="SGD keeps beta, rows, which is not one number for all parts"):
            kept.whole()


def test_a_checkpoint_makes_what_it_holds_in_the_place_of_what_is_there() -> None:
    kept, inner, p, q = two()
    old = {"moved": torch.ones(2, 3), "rows": torch.ones(2, dtype=torch.float64), "stale": torch.ones(2)}
    inner.state[p], inner.state[q] = dict(old), {"moved": torch.ones(3)}
    inner.param_groups[0] |= {"momentum": 0.75}
    tensors = {
        "weight": {"p": torch.zeros(2, 3), "q": torch.zeros(3)},
        "ema": {"p": torch.zeros(2, 3), "q": torch.zeros(3)},
        "moved": {"p": torch.full((2, 3), 7.0)},
        "rows": {"p": torch.full((2,), 8.0)},
    }
    saved = Checkpoint(tensors)
    there = record(inner, numbers={"count": {"p": {"$tuple": [5, 6]}}}, options=[{"dampening": 0.25}])
    kept.prepare(saved, there)
    assert inner.param_groups[0]["dampening"] == 0.25
    assert inner.param_groups[0]["momentum"] == 0, "what the configuration says of it"
    # The tensor that was there, since DeepSpeed has views of it; of another type a new one.
    assert inner.state[p]["moved"] is old["moved"]
    assert (inner.state[p]["rows"].dtype, inner.state[p]["rows"].tolist()) == (torch.float32, [0.0, 0.0])
    assert inner.state[p].keys() == {"moved", "rows", "count"}
    assert inner.state[p]["count"] == (5, 6)
    assert list(inner.state) == [p], "of what has no state there is no entry"
    kept.read_whole(saved)()
    assert inner.state[p]["rows"].tolist() == [8.0, 8.0]
    assert inner.state[p]["moved"].tolist() == old["moved"].tolist(), "that is dealt out with the weights"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"type": "AdamW"}, "AdamW wrote the checkpoint, SGD is here"),
        ({"options": []}, "the checkpoint has 0 parameter groups, 1 are here"),
        ({"options": [{}, {}]}, "the checkpoint has 2 parameter groups, 1 are here"),
    ],
)
def test_a_checkpoint_of_another_optimizer_is_refused(fields: dict[str, Any], sentence: str) -> None:
    kept, inner, p, _ = two()
    inner.state[p] = {"moved": torch.ones(2, 3)}
    with pytest.raises(ValueError, match=sentence):
        kept.prepare(Checkpoint({}), record(inner, **fields))
    with pytest.raises(ValueError, match="another wrote the checkpoint, SGD is here"):
        kept.prepare(Checkpoint({}), {})
    assert list(inner.state[p]) == ["moved"]


def test_a_flat_tensor_takes_numbers_that_all_of_its_parameters_share() -> None:
    kept, inner, master = flat("a", "b", "c")
    half, names = torch.tensor([0.5]), ("a", "b", "c")
    tensors = {"moved": {name: torch.ones(2) for name in names}, "beta": dict.fromkeys(names, half)}
    saved = Checkpoint(tensors)
    kept.prepare(saved, record(inner, numbers={"count": dict.fromkeys(names, 3)}, on_host=["beta"]))
    kept.read_whole(saved)()
    state = inner.state[master]
    assert (state["moved"].shape, state["beta"].tolist(), state["count"]) == ((6,), [0.5], 3)
    # One that differs is enough.
    tensors["beta"]["c"] = torch.tensor([0.25])
    with pytest.raises(ValueError, match=r"SGD has its own beta for each parameter in this checkpoint.*zero_stage=0"):
        kept.read_whole(saved)()
    with pytest.raises(ValueError, match="SGD has its own count for each parameter in this checkpoint"):
        kept.prepare(saved, record(inner, numbers={"count": {"a": 3, "b": 3, "c": 4}}))


@pytest.mark.parametrize(
    "kind",
    [
        {"a": torch.ones(2)},
        {"a": torch.ones(3), "b": torch.ones(3)},
        {"a": torch.ones(2), "b": torch.ones(3)},
    ],
)
def test_a_flat_tensor_takes_nothing_of_whole_parameters(kind: dict[str, Tensor]) -> None:
    kept, inner, _ = flat("a", "b")
    with pytest.raises(ValueError, match="SGD has moved of whole parameters in this checkpoint"):
        kept.prepare(Checkpoint({"moved": kind}), record(inner))


def test_moments_are_kept_by_others_and_know_no_record() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    kept = kept_by(torch.optim.AdamW([parameter]), {parameter: ["p"]}, {"p": parameter.shape}, ALONE, is_cut=False)
    assert isinstance(kept, KeptMoments)
    assert (kept.kinds(), kept.whole(), kept.record()) == (
        {"exp_avg": torch.float32, "exp_avg_sq": torch.float32},
        {},
        {},
    )
    kept.prepare(Checkpoint({}), {})
    with pytest.raises(ValueError, match="SGD wrote the checkpoint"):
        kept.prepare(Checkpoint({}), {"type": "SGD"})


def test_a_state_is_made_again_on_the_host_or_beside_its_weights_as_it_was() -> None:
    master = nn.Parameter(torch.zeros(2, 3, device="meta"))
    inner = torch.optim.SGD([master], lr=0.1)
    kept = KeptState(inner, {master: ["p"]}, {"p": master.shape}, ALONE, is_cut=False)
    inner.state[master] = {"moved": torch.ones(2, 3, device="meta"), "step": torch.tensor(5.0)}
    told = kept.record()
    assert told["on_host"] == ["step"]
    kept.prepare(Checkpoint({"moved": {"p": torch.ones(2, 3)}, "step": {"p": torch.tensor(5.0)}}), told)
    devices = {kind: each.device.type for kind, each in inner.state[master].items()}
    assert devices == {"moved": "meta", "step": "cpu"}
