"""Values that contradict each other are named; the cut of a batch is derived."""

import math
from dataclasses import asdict
from typing import Any

import pytest

from trainer.config import CheckpointConfig, HealthConfig, OptimizerConfig, ProfileConfig, TrainConfig, joint_problems
from trainer.ema_config import EmaConfig
from trainer.run_length import idle
from trainer.schedule import learning_rate, unreached


@pytest.mark.parametrize("part", [OptimizerConfig, TrainConfig, CheckpointConfig, HealthConfig, ProfileConfig])
def test_defaults_have_no_problems(part: type) -> None:
    assert list(part().problems()) == []


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (TrainConfig(steps=0), "steps"),
        (TrainConfig(zero_stage=4), "zero_stage"),
        (TrainConfig(zero_stage=0, precision="fp16"), "precision"),
        (OptimizerConfig(schedule="step"), "decay_steps"),
        (OptimizerConfig(schedule="step", decay_steps=(3, 2)), "decay_steps"),
        (OptimizerConfig(beta1=1.5), "beta1"),
        (OptimizerConfig(reference_batch=-256), "reference_batch"),
        (CheckpointConfig(keep_last=0), "keep_last"),
    ],
)
def test_a_contradiction_is_named_by_its_key(config: object, key: str) -> None:
    assert key in dict(config.problems())


TEN = TrainConfig(steps=10)


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (OptimizerConfig(warmup_steps=11), "optimizer.warmup_steps = 11: the run of 10 steps ends before its learning"),
        (OptimizerConfig(schedule="constant", warmup_steps=99), "optimizer.warmup_steps = 99: "),
        (
            OptimizerConfig(schedule="stable_decay", warmup_steps=4, cooldown_steps=7),
            "optimizer.cooldown_steps = 7: the run of 10 steps has 6 after the warm-up, and the rate jumps from its "
            "warm-up into a fall that began 1 step earlier",
        ),
        (OptimizerConfig(schedule="stable_decay", cooldown_steps=12), "optimizer.cooldown_steps = 12: the run of 10"),
        (OptimizerConfig(schedule="flat_cosine", flat_steps=10), "optimizer.flat_steps = 10: the run of 10 steps ends"),
        (OptimizerConfig(schedule="step", decay_steps=(5, 10, 12)), "optimizer.decay_steps: the run of 10 steps ends "),
    ],
)
def test_what_a_schedule_does_after_the_last_step_is_told(optimizer: OptimizerConfig, sentence: str) -> None:
    assert list(optimizer.problems()) == []
    [told] = unreached(optimizer, 10)
    assert told.startswith(sentence)
    assert list(unreached(optimizer, 100)) == []


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(warmup_steps=10),
        OptimizerConfig(schedule="stable_decay", warmup_steps=4, cooldown_steps=6),
        OptimizerConfig(schedule="stable_decay", cooldown_steps=10),
        OptimizerConfig(schedule="flat_cosine", flat_steps=9, warmup_steps=9),
        OptimizerConfig(schedule="step", decay_steps=(1, 9), warmup_steps=1),
    ],
)
def test_a_schedule_that_reaches_its_peak_and_does_all_that_it_names_fits(optimizer: OptimizerConfig) -> None:
    assert [*optimizer.problems(), *unreached(optimizer, 10)] == []
    assert max(learning_rate(optimizer, step, 10) for step in range(10)) == optimizer.learning_rate


@pytest.mark.parametrize(
    ("optimizer", "key", "values"),
    [
        (OptimizerConfig(schedule="step", decay_steps=(0, 3)), "decay_steps", ("0", "peak", "at least 1")),
        (OptimizerConfig(schedule="step", decay_steps=(-4, 3)), "decay_steps", ("-4", "at least 1")),
        (OptimizerConfig(schedule="step", decay_steps=(3,), warmup_steps=4), "decay_steps", ("3", "warmup_steps=4")),
        (OptimizerConfig(schedule="flat_cosine", flat_steps=3, warmup_steps=4), "flat_steps", ("3", "warmup_steps=4")),
    ],
)
def test_a_fall_within_the_warm_up_is_refused(optimizer: OptimizerConfig, key: str, values: tuple[str, ...]) -> None:
    [(named, sentence)] = optimizer.problems()
    assert named == key
    assert all(value in sentence for value in values)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"train": TrainConfig(steps=10, evaluate_every_steps=3, patience=3)},
            "train.patience = 3 cannot end the run early: it takes 4 evaluations, 3 steps apart, and the run has 10",
        ),
        ({"checkpoint": CheckpointConfig(keep_every_steps=11)}, "checkpoint.keep_every_steps = 11 keeps no"),
        ({"profile": ProfileConfig(first_step=11)}, "profile.first_step = 11 is after the last step"),
        ({"profile": ProfileConfig(first_step=9)}, "profile.first_step = 9 leaves 2 of its 3 steps"),
        ({"profile": ProfileConfig(first_step=10, num_steps=2)}, "profile.first_step = 10 leaves 1 of its 2 steps"),
        ({"health": HealthConfig(spike_score=8.0)}, "health.spike_score = 8.0 judges no loss"),
        ({"optimizer": OptimizerConfig(learning_rate=0.0)}, "optimizer.learning_rate = 0"),
        ({"optimizer": OptimizerConfig(warmup_steps=11)}, "optimizer.warmup_steps = 11"),
    ],
)
def test_what_never_happens_in_a_run_of_its_length_is_told(parts: dict[str, Any], words: str) -> None:
    defaults = {"optimizer": OptimizerConfig(), "train": TEN, "checkpoint": CheckpointConfig()}
    defaults |= {"health": HealthConfig(), "profile": ProfileConfig()}
    assert list(idle(**defaults)) == []
    [sentence] = idle(**(defaults | parts))
    assert sentence.startswith(words)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            {"train": TrainConfig(steps=11, evaluate_every_steps=3, patience=3)},
            "train.patience = 3 cannot end the run early: it takes 4 evaluations, 3 steps apart, and the run has 11",
        ),
        ({"train": TrainConfig(steps=12, evaluate_every_steps=3, patience=3)}, None),
        ({"train": TrainConfig(steps=1), "profile": ProfileConfig(first_step=1, num_steps=1)}, None),
        (
            {"train": TrainConfig(steps=1), "profile": ProfileConfig(first_step=1, num_steps=2)},
            "profile.first_step = 1 leaves 1 of its 2 steps before the run ends, and no trace is written",
        ),
        (
            {"profile": ProfileConfig(first_step=11)},
            "profile.first_step = 11 is after the last step, 10: nothing is traced",
        ),
        (
            {"train": TrainConfig(steps=1), "checkpoint": CheckpointConfig(keep_every_steps=2)},
            "checkpoint.keep_every_steps = 2 keeps no checkpoint of 1 step",
        ),
        (
            {"health": HealthConfig(spike_score=8.0)},
            "health.spike_score = 8.0 judges no loss: it needs 10 before, and the run has 10 steps",
        ),
        ({"train": TrainConfig(steps=11), "health": HealthConfig(spike_score=8.0)}, None),
    ],
)
def test_what_a_run_is_too_short_for_is_told_in_numbers(parts: dict[str, Any], sentence: str | None) -> None:
    defaults: dict[str, Any] = {"optimizer": OptimizerConfig(), "train": TEN, "checkpoint": CheckpointConfig()}
    defaults |= {"health": HealthConfig(), "profile": ProfileConfig()}
    assert list(idle(**(defaults | parts))) == ([sentence] if sentence else [])


def test_what_happens_in_the_last_step_is_not_called_idle() -> None:
    parts: dict[str, Any] = {
        "optimizer": OptimizerConfig(),
        "train": TrainConfig(steps=12, evaluate_every_steps=3, patience=2),
        "checkpoint": CheckpointConfig(keep_every_steps=12, save_every_steps=1_000),
        "health": HealthConfig(spike_score=8.0),
        "profile": ProfileConfig(first_step=10, num_steps=3),
    }
    assert list(idle(**parts)) == []


def test_the_micro_batch_is_the_whole_share_unless_one_is_given() -> None:
    assert TrainConfig(global_batch=32).micro_batches_per_rank(4) == 1
    assert TrainConfig(global_batch=32, micro_batch=2).micro_batches_per_rank(4) == 4
    assert TrainConfig(global_batch=32, micro_batch=100).micro_batches_per_rank(4) == 1
    assert TrainConfig(global_batch=32, micro_batch=8).micro_batches_per_rank(4) == 1


@pytest.mark.parametrize(("config", "world_size"), [(TrainConfig(global_batch=32), 3), (TrainConfig(32, 32, 3), 2)])
def test_a_batch_that_cannot_be_cut_evenly_is_refused(config: object, world_size: int) -> None:
    with pytest.raises(ValueError, match="train"):
        config.micro_batches_per_rank(world_size)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"patience": 1}, ("patience", "counts evaluations, and train.evaluate_every_steps is 0; set that too")),
        (
            {"least_improvement": 0.1},
            ("least_improvement", "is for train.patience, which is 0; set that too, or leave this out"),
        ),
        *(
            (
                {"gradient_exchange": "during_backward", "zero_stage": stage},
                ("gradient_exchange", "during_backward is a choice at zero_stage 1 and 2 only; take auto"),
            )
            for stage in (0, 3)
        ),
        *(
            (
                {"gradient_dtype": "bf16", **fields},
                ("gradient_dtype", "bf16 is for zero_stage 0, 1 and 2, and not for precision=fp16; take fp32"),
            )
            for fields in ({"zero_stage": 3}, {"precision": "fp16"})
        ),
        *(
            ({"gradient_exchange": "during_backward", "gradient_dtype": "bf16", "zero_stage": stage}, None)
            for stage in (1, 2)
        ),
        *(({"gradient_exchange": "after_backward", "zero_stage": stage}, None) for stage in (0, 3)),
        ({"gradient_dtype": "bf16", "zero_stage": 0}, None),
    ],
)
def test_what_belongs_to_another_key_is_refused_without_it(
    fields: dict[str, Any], problem: tuple[str, str] | None
) -> None:
    assert list(TrainConfig(**fields).problems()) == ([problem] if problem else [])


def test_a_value_that_is_none_is_told_of_once() -> None:
    # Below 0, and of another schedule.
    [(key, sentence)] = OptimizerConfig(flat_steps=-1).problems()
    assert (key, sentence) == ("flat_steps", "must be a number and at least 0, got -1")
    assert [key for key, _ in OptimizerConfig(beta1=2.0, name="sgd").problems()] == ["beta1", "name"]


@pytest.mark.parametrize(
    ("freeze", "name", "found"),
    [
        (("a=3",), "muon", ["a is trained later, for which take adamw or lamb"]),
        (("a=3",), "adamw", []),
        (("a=3",), "lamb", []),
        (("a=0", "b"), "muon", []),
        (("a=10",), "lamb", ["a would train from step 10 on, which is not before train.steps=10; write a to freeze "]),
        (("a=9",), "adamw", []),
        # Of what is no rule the optimizer's own problems tell.
        (("a=99", "b=soon"), "adamw", []),
    ],
)
def test_what_is_trained_later_is_trained_before_the_end_and_by_an_optimizer_that_can(
    freeze: tuple[str, ...], name: str, found: list[str]
) -> None:
    train = TrainConfig(steps=10, zero_stage=0)
    told = [*joint_problems(OptimizerConfig(name=name, freeze=freeze), train)]
    assert [key for key, _ in told] == ["optimizer.freeze"] * len(found)
    assert all(sentence.startswith(words) for (_, sentence), words in zip(told, found, strict=True))


def test_lamb_over_cut_weights_is_a_problem_of_both_parts() -> None:
    lamb = OptimizerConfig(name="lamb")
    assert [key for key, _ in joint_problems(lamb, TrainConfig(zero_stage=3))] == ["optimizer.name"]
    assert all(list(joint_problems(lamb, TrainConfig(zero_stage=stage))) == [] for stage in range(3))


def test_layers_whose_weights_are_gathered_within_them_are_not_compiled() -> None:
    adamw = OptimizerConfig()
    [(key, sentence)] = joint_problems(adamw, TrainConfig(zero_stage=3), compiles=True)
    assert key == "model.compile"
    assert "compiles with train.zero_stage 0, 1 and 2" in sentence
    assert list(joint_problems(adamw, TrainConfig(zero_stage=3))) == []
    assert list(joint_problems(adamw, TrainConfig(zero_stage=2), compiles=True)) == []


def test_what_nobody_sets_is_the_same_in_every_release() -> None:
    # A run that leaves a key out must resume, under another release, with the value that it began with.
    assert asdict(OptimizerConfig()) == {
        "name": "adamw",
        "learning_rate": 1e-3,
        "reference_batch": 0,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "schedule": "cosine",
        "warmup_steps": 0,
        "cooldown_steps": 0,
        "final_fraction": 0.0,
        "flat_steps": 0,
        "decay_steps": (),
        "decay_factor": 0.1,
        "freeze": (),
        "rate_factors": (),
        "decay_factors": (),
        "layer_decay": 1.0,
        "options": {},
    }
    assert asdict(EmaConfig()) == {"decay": 0.0, "every_steps": 1, "evaluate": False}
    assert asdict(TrainConfig()) == {
        "steps": 1_000,
        "global_batch": 128,
        "micro_batch": 0,
        "activation_memory_gib": 0.0,
        "precision": "auto",
        "deterministic": True,
        "tf32": False,
        "zero_stage": 1,
        "gradient_dtype": "fp32",
        "gradient_exchange": "auto",
        "gradient_bucket_mib": 0,
        "label_smoothing": 0.0,
        "log_every_steps": 10,
        "evaluate_every_steps": 0,
        "patience": 0,
        "least_improvement": 0.0,
        "collective_timeout_seconds": 600.0,
        "time_limit_minutes": 0.0,
    }
    assert asdict(CheckpointConfig()) == {
        "save_every_steps": 1_000,
        "save_every_minutes": 15.0,
        "keep_last": 3,
        "keep_every_steps": 0,
        "keep_best": False,
        "best_by": "",
        "asynchronous": True,
    }
    assert asdict(HealthConfig()) == {
        "hang_seconds": 60.0,
        "compile_seconds": 1_800.0,
        "max_skipped_in_a_row": 5,
        "max_rollbacks": 3,
        "spike_score": 0.0,
        "spike_window_steps": 100,
    }
    assert (ProfileConfig().first_step, ProfileConfig().num_steps) == (0, 3)


def test_a_line_of_metrics_comes_every_so_many_steps_and_at_the_end() -> None:
    config = TrainConfig(steps=7, log_every_steps=3)
    assert [step for step in range(1, 8) if config.logs(step)] == [3, 6, 7]


NUMBERS = [
    *((OptimizerConfig, key, 0.0, -1e-9) for key in ("learning_rate", "weight_decay", "clip_norm")),
    *((OptimizerConfig, key, 0, -1) for key in ("warmup_steps", "flat_steps", "reference_batch")),
    (OptimizerConfig, "cooldown_steps", 1, -1),
    *((OptimizerConfig, key, 0.0, -1e-9) for key in ("beta1", "beta2", "final_fraction", "decay_factor")),
    *((OptimizerConfig, key, 1.0, 1.0 + 1e-9) for key in ("final_fraction", "decay_factor")),
    *((OptimizerConfig, key, 1.0 - 1e-9, 1.0) for key in ("beta1", "beta2")),
    (OptimizerConfig, "epsilon", 1e-30, 0.0),
    *((TrainConfig, key, 1, 0) for key in ("steps", "global_batch", "log_every_steps")),
    *((TrainConfig, key, 0, -1) for key in ("micro_batch", "activation_memory_gib", "evaluate_every_steps")),
    (TrainConfig, "time_limit_minutes", 0.0, -0.1),
    *((TrainConfig, key, 0, -1) for key in ("gradient_bucket_mib", "patience")),
    (TrainConfig, "least_improvement", 0.0, -0.1),
    (TrainConfig, "label_smoothing", 1.0, 1.1),
    (TrainConfig, "label_smoothing", 0.0, -0.1),
    (TrainConfig, "zero_stage", 3, 4),
    (TrainConfig, "zero_stage", 0, -1),
    (TrainConfig, "collective_timeout_seconds", 1e-9, 0.0),
    (TrainConfig, "collective_timeout_seconds", 2_000_000.0, 2_000_001.0),
    *((CheckpointConfig, key, 0, -1) for key in ("save_every_steps", "save_every_minutes", "keep_every_steps")),
    (CheckpointConfig, "keep_last", 1, 0),
    *((HealthConfig, key, 0, -1) for key in ("hang_seconds", "compile_seconds", "max_rollbacks", "spike_score")),
    (HealthConfig, "max_skipped_in_a_row", 1, 0),
    (HealthConfig, "spike_window_steps", 10, 9),
    (ProfileConfig, "first_step", 0, -1),
    (ProfileConfig, "num_steps", 1, 0),
]


# Keys that belong to a schedule, or to another key, are taken beside it alone.
BESIDE: dict[str, dict[str, Any]] = {
    "flat_steps": {"schedule": "flat_cosine"},
    "decay_factor": {"schedule": "step", "decay_steps": (1,)},
    "cooldown_steps": {"schedule": "stable_decay"},
    "patience": {"evaluate_every_steps": 1},
    "least_improvement": {"evaluate_every_steps": 1, "patience": 1},
}


@pytest.mark.parametrize(("part", "key", "least", "wrong"), NUMBERS)
def test_a_number_is_taken_up_to_its_bound_and_no_further(part: type, key: str, least: float, wrong: float) -> None:
    beside = BESIDE.get(key, {})
    assert list(part(**{key: least}, **beside).problems()) == []
    for value in (wrong, math.nan, *([math.inf] if key != "zero_stage" else [])):
        [(named, sentence)] = part(**{key: value}, **beside).problems()
        assert named == key
        assert str(value) in sentence


def test_precisions_schedules_and_decays_that_fit_together_are_no_problem() -> None:
    for stage in (1, 2, 3):
        assert list(TrainConfig(precision="fp16", zero_stage=stage).problems()) == []
    assert list(TrainConfig(precision="bf16", zero_stage=0).problems()) == []
    assert list(OptimizerConfig(schedule="step", decay_steps=(1, 2)).problems()) == []
    assert [key for key, _ in OptimizerConfig(schedule="step", decay_steps=(2, 2)).problems()] == ["decay_steps"]
    assert list(joint_problems(OptimizerConfig(), TrainConfig(zero_stage=3))) == []
