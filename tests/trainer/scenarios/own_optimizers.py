"""Optimizers with states of their own kinds; for each, train 3 steps and save, or load at another stage, and train on.

own_optimizers.py FOLDER save|load|again
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import xxhash
from tiny import engine, share, whole_batch

from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, OptimizerConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.optimizer_choice import OPTIMIZERS, RunOptimizer
from trainer.run_state import RunState


class Odd(torch.optim.Optimizer):
    """Momentum in bf16, a sum for each row, a size of its own for each tensor, a count and a number of the group."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "shrink": 1.0})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            group["shrink"] *= 0.9
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p, dtype=torch.bfloat16)
                    state["rows"] = torch.zeros(p.shape[0], dtype=torch.float64)
                    state["scale"], state["count"] = torch.ones(()), 0
                state["count"] += 1
                state["momentum"].mul_(0.5).add_(p.grad.to(torch.bfloat16))
                state["rows"] += p.grad.double().flatten(1).square().sum(1) if p.dim() > 1 else p.grad.double().square()
                state["scale"].mul_(0.5).add_(p.norm())
                root = state["rows"].sqrt().float().view(-1, *[1] * (p.dim() - 1)) + state["scale"]
                p -= group["lr"] * group["shrink"] * state["momentum"].float() / root / state["count"]


class Means(torch.optim.Optimizer):
    """Elementwise: momentum, with a tensor of one number and a count that are the same for all."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "k": 0})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            group["k"] += 1
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state |= {"mean": torch.zeros_like(p), "beta": torch.tensor(0.5), "t": 0}
                state["t"] += 1
                state["mean"].mul_(state["beta"]).add_(p.grad)
                state["beta"].mul_(0.9)
                p -= group["lr"] * state["mean"] / (group["k"] + state["t"])


@dataclass(frozen=True)
class OddOptimizer(RunOptimizer):
    name: ClassVar[str] = "odd"
    numbers_per_weight: ClassVar[int] = 1
    wished: float = 1.0

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return Odd(groups, learning_rate)

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.wished < 0:
            yield "wished", "must not be negative"


@dataclass(frozen=True)
class MeansOptimizer(RunOptimizer):
    name: ClassVar[str] = "means"
    elementwise: ClassVar[bool] = True

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return Means(groups, learning_rate)


@dataclass(frozen=True)
class SgdOptimizer(RunOptimizer):
    name: ClassVar[str] = "sgd"
    elementwise: ClassVar[bool] = True

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9)


@dataclass(frozen=True)
class AdafactorOptimizer(RunOptimizer):
    name: ClassVar[str] = "adafactor"

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(groups, lr=learning_rate)


@dataclass(frozen=True)
class FalseOptimizer(OddOptimizer):
    """Says that it is elementwise, and has a number of its own for each part."""

    name: ClassVar[str] = "false"
    elementwise: ClassVar[bool] = True


OWN = (OddOptimizer, MeansOptimizer, SgdOptimizer, AdafactorOptimizer, FalseOptimizer)
# Who saves, and the stages of who saves and who loads.
CASES = {"odd": (0, 0), "muon": (0, 0), "means": (1, 3), "sgd": (2, 0)}


def digest(trained: Engine, world: World) -> list[str]:
    """Return a hash of every tensor that any rank holds, in an order that no world changes."""
    mine = {
        f"{kind} {name}": xxhash.xxh3_64_hexdigest(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        for kind, tensors in trained.snapshot().items()
        for name, tensor in tensors.items()
    }
    return sorted(f"{name} {value}" for part in world.gather(mine) for name, value in part.items())


def train(trained: Engine, world: World, first: int, last: int) -> list[float]:
    return [float(trained.step(share(whole_batch(step), world)).loss) for step in range(first, last)]


def main(folder: Path, mode: str) -> dict[str, Any]:
    OPTIMIZERS.update({own.name: own for own in OWN})
    world = World.from_environment(60.0)
    result: dict[str, Any] = {}
    for name, stages in CASES.items():
        made = OptimizerConfig(name, learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, schedule="constant")
        store = Store(folder / name, CheckpointConfig(asynchronous=False), world)
        trained = engine(world, seed=int(mode != "save"), optimizer=made, zero_stage=stages[mode == "load"])
        if mode == "save":
            train(trained, world, 0, 3)
            store.save(trained, RunState(step=3))
        else:
            assert store.load(trained) is not None
        key = "saved" if mode == "save" else "loaded"
        result[name] = {key: digest(trained, world), "losses": train(trained, world, 3, 6)}
        trained.close()
        store.close()
    if mode == "save":
        trained = engine(world, optimizer=OptimizerConfig("false"), zero_stage=1)
        train(trained, world, 0, 1)
        try:
            trained.snapshot()
        except ValueError as error:
            result["refused"] = {"saved": str(error)}
        trained.close()
    world.close()
    return result


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
