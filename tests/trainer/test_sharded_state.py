"""The state of an engine on several ranks: each tensor is written once and reaches every rank, with all numbers."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from test_kept_state import Checkpoint
from threads import ThreadWorld, on_ranks
from tiny import Network

from trainer.ema_config import EmaConfig
from trainer.engine.sharded_state import ShardedState
from trainer.optim.optimizers import zero_state
from trainer.run_state import Averaged, EngineState

EMA = EmaConfig(decay=0.5)
Kind = dict[str, Tensor]


class Engine:
    """An engine at ZeRO 0, as far as its state is concerned: what is trained from step 5 on is a group of its own."""

    def __init__(
        self,
        world: ThreadWorld,
        *,
        seed: int = 0,
        name: str = "adamw",
        ema: EmaConfig | None = None,
        scales: bool = False,
    ) -> None:
        self.network = Network(seed)
        late = [self.network.last.weight, self.network.last.bias]
        early = [p for p in self.network.parameters() if p.requires_grad and all(p is not other for other in late)]
        groups = [{"params": early, "first_step": 0}, {"params": late, "first_step": 5}]
        self.inner: Any = (
            torch.optim.AdamW(groups) if name == "adamw" else torch.optim.SGD(groups, lr=0.1, momentum=0.5)
        )
        if scales:
            self.inner.loss_scaler = SimpleNamespace(cur_scale=4.0, cur_iter=7, unknown=1)
        deepspeed = SimpleNamespace(zero_optimization_stage=lambda: 0, module=self.network, optimizer=self.inner)
        shapes = {key: tensor.shape for key, tensor in self.network.state_dict().items()}
        self.state = ShardedState(deepspeed, self.inner, shapes, world, ema)
        if name == "adamw":
            zero_state(self.state.partitions.masters(), self.inner)

    def fill(self) -> None:
        """Give every tensor values of its own, as if it had been trained."""
        generator = torch.Generator().manual_seed(9)
        for group, count in zip(self.inner.param_groups, (7.0, 2.0), strict=True):
            for parameter in group["params"]:
                state = self.inner.state[parameter]
                if isinstance(self.inner, torch.optim.SGD):
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                for kind, tensor in state.items():
                    tensor.copy_(
                        torch.tensor(count) if kind == "step" else torch.rand(tensor.shape, generator=generator)
                    )

    def progress(self) -> EngineState:
        state = self.state
        average = state.average.progress() if state.average else None
        numbers = state.applied_steps(), state.loss_scale(), average, state.details(), state.late_steps()
        return EngineState(7, *numbers)

    def tensors(self) -> dict[str, Kind]:
        """Return all tensors by kind and name, as this rank has them."""
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        found: dict[str, Kind] = {"weight": {name: t.clone() for name, t in self.network.state_dict().items()}}
        for parameter, state in self.inner.state.items():
            for kind, tensor in state.items():
                if kind != "step":
                    found.setdefault(kind, {})[names[parameter]] = tensor.clone()
        if self.state.average:
            found["ema"] = {names[p]: self.state.average.of(p).clone() for p in self.state.partitions.masters()}
        return found


def assert_alike(one: dict[str, Kind], other: dict[str, Kind]) -> None:
    assert {kind: sorted(of) for kind, of in one.items()} == {kind: sorted(of) for kind, of in other.items()}
    assert all(torch.equal(tensor, other[kind][name]) for kind, of in one.items() for name, tensor in of.items())


def together(snapshots: list[dict[str, Kind]]) -> dict[str, Kind]:
    """Return what all ranks write; each tensor is written by one."""
    found: dict[str, Kind] = {}
    for snapshot in snapshots:
        for kind, of in snapshot.items():
            assert not found.get(kind, {}).keys() & of.keys()
            found.setdefault(kind, {}).update({name: tensor.clone() for name, tensor in of.items()})
    return found


def saved(name: str, ema: EmaConfig | None = None, **options: Any) -> tuple[dict[str, Kind], EngineState]:  # noqa: ANN401
    def save(world: ThreadWorld) -> Any:  # noqa: ANN401
        engine = Engine(world, name=name, ema=ema, **options)
        engine.fill()
        if engine.state.average:
            engine.state.average.after(1)
        return engine.state.snapshot(), engine.progress(), engine.tensors()

    snapshots, states, tensors = zip(*on_ranks(2, save), strict=True)
    assert snapshots[0]["weight"].keys() >= {"frozen", "offset"}, "what nobody moves is written by the first"
    assert not snapshots[1]["weight"].keys() & {"frozen", "offset"}
    assert snapshots[1]["weight"], "the others write their share"
    found = together(list(snapshots))
    assert_alike(found, tensors[0])
    assert states[0] == states[1]
    return found, states[0]


def restored(
    tensors: dict[str, Kind],
    progress: EngineState,
    **options: Any,  # noqa: ANN401
) -> list[tuple[dict[str, Kind], EngineState]]:
    def load(world: ThreadWorld) -> Any:  # noqa: ANN401
        # Every rank begins with weights of its own, and with steps behind it.
        engine = Engine(world, seed=world.rank + 1, **options)
        engine.fill()
        if engine.state.average:
            engine.state.average.after(1)
        engine.state.restore(Checkpoint(tensors), progress)
        return engine.tensors(), engine.progress()

    return on_ranks(2, load)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("ema", [None, EMA])
def test_every_rank_takes_over_every_tensor_and_every_number(name: str, ema: EmaConfig | None) -> None:
    tensors, progress = saved(name, ema, scales=True)
    moments = {"exp_avg", "exp_avg_sq"} if name == "adamw" else {"momentum_buffer"}
    assert tensors.keys() == {"weight", *moments, *(["ema"] if ema else [])}
    for found, numbers in restored(tensors, progress, name=name, ema=ema, scales=True):
        assert_alike(found, tensors)
        assert numbers == progress


def test_the_numbers_of_an_engine_are_these() -> None:
    _, progress = saved("adamw", EMA, scales=True)
    scale = {"cur_scale": 4.0, "cur_iter": 7}
    assert progress == EngineState(7, 7.0, scale, Averaged(0.5, 1), {}, {"5": 2.0})
    _, progress = saved("sgd")
    details = {"optimizer_state": {"type": "SGD", "numbers": {}, "on_host": ["momentum_buffer"], "options": [{}, {}]}}
    # Its counts, if it has any, are part of the state that it names.
    assert progress == EngineState(7, 0.0, {}, None, details, {})


def test_a_checkpoint_must_have_the_weights_and_the_moments_of_what_is_trained() -> None:
    def shapes(world: ThreadWorld) -> list[list[str]]:
        required = [Engine(world, name=name, ema=EMA).state.shapes() for name in ("adamw", "sgd")]
        assert all(of["weight"] == {name: t.shape for name, t in Network(0).state_dict().items()} for of in required)
        assert "frozen" not in required[0]["exp_avg"]
        return [list(of) for of in required]

    assert on_ranks(1, shapes) == [[["weight", "exp_avg", "exp_avg_sq"], ["weight"]]]


def test_an_average_of_another_decay_begins_anew_and_the_rest_is_taken_over() -> None:
    tensors, progress = saved("adamw", EMA)
    for found, numbers in restored(tensors, progress, ema=EmaConfig(decay=0.25)):
        averages = found.pop("ema")
        assert not any(tensor.any() for tensor in averages.values())
        assert numbers.average == Averaged(0.25, 0)
        assert_alike(found, {kind: of for kind, of in tensors.items() if kind != "ema"})
    # One that the checkpoint does not have, too.
    tensors, progress = saved("adamw")
    assert all(not any(t.any() for t in found["ema"].values()) for found, _ in restored(tensors, progress, ema=EMA))


def test_a_scale_that_is_not_here_is_left_out_and_one_that_is_not_there_stays() -> None:
    tensors, progress = saved("adamw", scales=True)
    assert [numbers.loss_scale for _, numbers in restored(tensors, progress)] == [{}, {}]
    tensors, progress = saved("adamw")
    scales = [numbers.loss_scale for _, numbers in restored(tensors, progress, scales=True)]
    assert scales == [{"cur_scale": 4.0, "cur_iter": 7}] * 2


def test_where_one_rank_cannot_read_its_own_all_are_told() -> None:
    tensors, progress = saved("adamw")

    class Broken(Checkpoint):
        def __call__(self, kind: str, name: str, start: int, stop: int, /) -> Tensor:
            if (kind, name) == ("weight", "frozen"):
                raise ValueError("the disk is gone")
            return super().__call__(kind, name, start, stop)

    def load(world: ThreadWorld) -> str:
        with pytest.raises(ValueError, match="the disk is gone") as refused:
            Engine(world).state.restore(Broken(tensors), progress)
        return str(refused.value)

    assert on_ranks(2, load) == ["the disk is gone"] * 2
