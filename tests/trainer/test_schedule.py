"""Each schedule is its formula at every step, and says what it lacks and what belongs to another one."""

from typing import Any

import pytest

from trainer.config import OptimizerConfig
from trainer.schedule import learning_rate, schedule_problems, unreached

PEAK: dict[str, Any] = {"learning_rate": 8.0}


@pytest.mark.parametrize(
    ("fields", "total", "rates"),
    [
        # The cosine of a third of the way is one half.
        ({"warmup_steps": 2, "final_fraction": 0.25}, 8, {0: 4, 1: 8, 2: 8, 4: 6.5, 5: 5, 8: 2, 9: 2}),
        ({"final_fraction": 0.25}, 6, {0: 8, 2: 6.5, 3: 5, 6: 2, 7: 2}),
        # A run that ends with its warm-up has no way to fall.
        ({"warmup_steps": 4, "final_fraction": 0.25}, 4, {3: 8, 4: 8, 5: 2}),
        ({"schedule": "constant", "warmup_steps": 2}, 8, {0: 4, 1: 8, 2: 8, 9: 8}),
        (
            {"schedule": "step", "warmup_steps": 1, "decay_steps": (3, 5), "decay_factor": 0.5},
            8,
            {0: 8, 2: 8, 3: 4, 4: 4, 5: 2, 9: 2},
        ),
        (
            {"schedule": "flat_cosine", "warmup_steps": 2, "flat_steps": 4, "final_fraction": 0.25},
            8,
            {0: 4, 2: 8, 4: 8, 6: 5, 8: 2, 9: 2},
        ),
        ({"schedule": "flat_cosine", "warmup_steps": 2, "final_fraction": 0.25}, 8, {0: 4, 2: 8, 5: 5, 8: 2}),
        (
            {"schedule": "stable_decay", "warmup_steps": 2, "cooldown_steps": 4, "final_fraction": 0.25},
            8,
            {0: 4, 2: 8, 4: 8, 5: 6.5, 6: 5, 7: 3.5, 8: 2, 9: 2},
        ),
    ],
)
def test_a_rate_is_its_formula(fields: dict[str, Any], total: int, rates: dict[int, float]) -> None:
    config = OptimizerConfig(**PEAK, **fields)
    found = {step: learning_rate(config, step, total) for step in rates}
    assert found == pytest.approx(rates, rel=1e-12)


OTHERS: dict[str, tuple[Any, str]] = {
    "final_fraction": (0.1, "set it to 0.0, or take schedule=cosine or flat_cosine or stable_decay"),
    "decay_steps": ((1,), "set it to [], or take schedule=step"),
    "decay_factor": (0.2, "set it to 0.1, or take schedule=step"),
    "flat_steps": (3, "set it to 0, or take schedule=flat_cosine"),
    "cooldown_steps": (3, "set it to 0, or take schedule=stable_decay"),
}


@pytest.mark.parametrize(
    ("schedule", "own"),
    [
        ("cosine", ["final_fraction"]),
        ("constant", []),
        ("step", ["decay_steps", "decay_factor"]),
        ("flat_cosine", ["flat_steps", "final_fraction"]),
        ("stable_decay", ["cooldown_steps", "final_fraction"]),
    ],
)
def test_what_belongs_to_another_schedule_is_named_with_that_one(schedule: Any, own: list[str]) -> None:  # noqa: ANN401
    config = OptimizerConfig(schedule=schedule, **{key: value for key, (value, _) in OTHERS.items()})
    assert list(schedule_problems(config)) == [
        (key, f"has no effect with schedule={schedule}; leave it out or {remedy}")
        for key, (_, remedy) in OTHERS.items()
        if key not in own
    ]


def test_an_empty_list_of_a_file_is_no_value_of_another_schedule() -> None:
    assert list(schedule_problems(OptimizerConfig(decay_steps=[]))) == []  # type: ignore[arg-type]  # as a file has it


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"schedule": "step"},
            ("decay_steps", "schedule=step needs the steps at which the rate falls, such as [1000,2000]"),
        ),
        ({"schedule": "step", "decay_steps": (3, 2)}, ("decay_steps", "must rise, got [3, 2]")),
        ({"schedule": "step", "decay_steps": (2, 2)}, ("decay_steps", "must rise, got [2, 2]")),
        (
            {"schedule": "step", "decay_steps": (0, 2)},
            ("decay_steps", "the first is 0, before the rate is at its peak; it must be at least 1"),
        ),
        (
            {"schedule": "step", "decay_steps": (3,), "warmup_steps": 4},
            (
                "decay_steps",
                "the first is 3, before the rate is at its peak; it must be at least 1 and optimizer.warmup_steps=4",
            ),
        ),
        (
            {"schedule": "flat_cosine", "flat_steps": 1, "warmup_steps": 2},
            ("flat_steps", "is 1, and contains optimizer.warmup_steps=2: set at least that many, or 0"),
        ),
        (
            {"schedule": "stable_decay"},
            (
                "cooldown_steps",
                "schedule=stable_decay needs the number of steps in which the rate falls, such as 1000",
            ),
        ),
        ({"schedule": "step", "decay_steps": [1, 4], "warmup_steps": 1}, None),
        ({"schedule": "step", "decay_steps": (4,), "warmup_steps": 4}, None),
        ({"schedule": "flat_cosine", "flat_steps": 2, "warmup_steps": 2}, None),
        ({"schedule": "flat_cosine", "warmup_steps": 2}, None),
        ({"schedule": "stable_decay", "cooldown_steps": 1}, None),
        # Of another schedule nothing is missing.
        ({"warmup_steps": 4}, None),
        ({"schedule": "constant", "warmup_steps": 4}, None),
    ],
)
def test_a_schedule_says_what_it_lacks(fields: dict[str, Any], problem: tuple[str, str] | None) -> None:
    assert list(schedule_problems(OptimizerConfig(**fields))) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("fields", "sentences"),
    [
        (
            {"schedule": "stable_decay", "warmup_steps": 10, "cooldown_steps": 1},
            [
                "optimizer.cooldown_steps = 1: the run of 10 steps has 0 after the warm-up, and the rate jumps from "
                "its warm-up into a fall that began 1 step earlier"
            ],
        ),
        (
            {"schedule": "stable_decay", "warmup_steps": 11, "cooldown_steps": 1},
            ["optimizer.warmup_steps = 11: the run of 10 steps ends before its learning rate is at the peak"],
        ),
        (
            {"schedule": "step", "decay_steps": (9, 10, 12), "warmup_steps": 11},
            [
                "optimizer.warmup_steps = 11: the run of 10 steps ends before its learning rate is at the peak",
                "optimizer.decay_steps: the run of 10 steps ends before 10, 12",
            ],
        ),
        ({"schedule": "step", "decay_steps": (9,)}, []),
        ({"schedule": "cosine", "decay_steps": (12,)}, []),
        ({"schedule": "cosine", "flat_steps": 12, "cooldown_steps": 12}, []),
        ({"schedule": "flat_cosine", "flat_steps": 9, "cooldown_steps": 12}, []),
        ({"schedule": "stable_decay", "flat_steps": 12, "cooldown_steps": 10}, []),
    ],
)
def test_what_a_run_never_comes_to_is_told_of_its_own_schedule_alone(
    fields: dict[str, Any], sentences: list[str]
) -> None:
    assert list(unreached(OptimizerConfig(**fields), 10)) == sentences
