"""An optimizer is chosen by its name, with keys that it reads, at a stage where it is exact; all else is refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from trainer.config import OptimizerConfig
from trainer.ema_config import EmaConfig
from trainer.optim.optimizers import num_beside
from trainer.optimizer_choice import OPTIMIZERS, RunOptimizer, name_problems, stage_problems, unknown


@dataclass(frozen=True)
class Own(RunOptimizer):
    """An optimizer of a plug-in, with an option of each type."""

    name: ClassVar[str] = "own"
    rate: float = 0.5
    count: int = 3
    nesterov: bool = True
    mode: str = "fast"
    given: tuple[int, ...] = (1,)

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        raise NotImplementedError

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.count == 7:
            yield "count", "must not be 7"


@dataclass(frozen=True)
class Bare(RunOptimizer):
    """Without options; three numbers a weight, each element by itself."""

    name: ClassVar[str] = "bare"
    elementwise: ClassVar[bool] = True
    numbers_per_weight: ClassVar[int] = 3

    def make(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        raise NotImplementedError


@dataclass(frozen=True)
class Asking(Bare):
    """With an option that has no default."""

    name: ClassVar[str] = "asking"
    must: int


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for own in (Own, Bare, Asking):
        monkeypatch.setitem(OPTIMIZERS, own.name, own)


def test_a_name_is_one_of_those_that_there_are() -> None:
    assert [unknown(name) for name in ("adamw", "lamb", "muon", "own")] == [""] * 4
    assert unknown("sgd") == "expected one of adamw, lamb, muon, own, bare, asking, or that of a plug-in, got 'sgd'"
    for name in ("schedule_free", "schedulefree", "schedule_free_adamw", "adamw_schedule_free", "adamw_schedulefree"):
        assert unknown(name).startswith("schedule-free AdamW is not built in: ")


@pytest.mark.parametrize(
    ("name", "options", "own_keys", "problems"),
    [
        ("adamw", {}, {"beta1": 0.9}, []),
        (
            "adamw",
            {"a": 1},
            {},
            [("options", "are those of a plug-in's optimizer; adamw has keys of its own, such as optimizer.beta1")],
        ),
        ("own", {}, {}, []),
        ("own", {"rate": 1, "count": 4, "nesterov": False, "mode": "slow", "given": 5}, {}, []),
        (
            "own",
            {"rate": True, "count": 4.0, "nesterov": 1, "mode": 2},
            {},
            [
                ("options.rate", "expected a value such as 0.5, got True"),
                ("options.count", "expected a value such as 3, got 4.0"),
                ("options.nesterov", "expected a value such as True, got 1"),
                ("options.mode", "expected a value such as 'fast', got 2"),
            ],
        ),
        # What is wrong with the values is asked where all of them are there.
        ("own", {"count": 7}, {}, [("options.count", "must not be 7")]),
        (
            "own",
            {"count": 7, "wish": 1},
            {},
            [("options.wish", "is no option of own, which has rate, count, nesterov, mode, given")],
        ),
        (
            "own",
            {"count": 7, "rate": "x"},
            {},
            [("options.rate", "expected a value such as 0.5, got 'x'")],
        ),
        ("bare", {"wish": 1}, {}, [("options.wish", "is no option of bare, which has none")]),
        (
            "bare",
            {},
            {"beta1": 0.9, "epsilon": 1e-8},
            [
                (
                    key,
                    "is for adamw, lamb, muon, and bare does not read it; leave it out or set it to "
                    f"{default} (its own keys: none)",
                )
                for key, default in (("beta1", 0.9), ("epsilon", 1e-8))
            ],
        ),
        (
            "asking",
            {},
            {},
            [("options.", "Asking.__init__() missing 1 required positional argument: 'must'; set it")],
        ),
        ("asking", {"must": "anything"}, {}, []),
    ],
)
def test_options_are_those_of_the_optimizer_and_of_their_types(
    name: str, options: dict[str, Any], own_keys: dict[str, object], problems: list[tuple[str, str]]
) -> None:
    assert list(name_problems(name, options, own_keys)) == problems


@pytest.mark.parametrize(
    ("name", "stages"),
    [("adamw", [0, 1, 2, 3]), ("lamb", [0, 1, 2]), ("muon", [0]), ("own", [0]), ("bare", [0, 1, 2, 3])],
)
def test_an_optimizer_is_taken_at_the_stages_where_it_is_exact(name: str, stages: list[int]) -> None:
    assert [stage for stage in range(4) if not list(stage_problems(name, stage))] == stages
    assert all(
        key == "optimizer.name" and name in words for stage in range(4) for key, words in stage_problems(name, stage)
    )


def test_beside_a_weight_lie_its_moments_what_a_plug_in_says_and_the_average() -> None:
    for name, number in (("adamw", 2), ("lamb", 2), ("muon", 2), ("own", 2), ("bare", 3)):
        assert num_beside(OptimizerConfig(name), EmaConfig()) == number
        assert num_beside(OptimizerConfig(name), EmaConfig(decay=0.9)) == number + 1
