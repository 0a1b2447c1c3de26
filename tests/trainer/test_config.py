"""Values that contradict each other are named; the cut of a batch is derived."""

import math
from dataclasses import asdict

import pytest

from trainer.config import CheckpointConfig, HealthConfig, OptimizerConfig, ProfileConfig, TrainConfig, joint_problems
from trainer.ema_config import EmaConfig


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


def test_the_micro_batch_is_the_whole_share_unless_one_is_given() -> None:
    assert TrainConfig(global_batch=32).micro_batches_per_rank(4) == 1
    assert TrainConfig(global_batch=32, micro_batch=2).micro_batches_per_rank(4) == 4
    assert TrainConfig(global_batch=32, micro_batch=100).micro_batches_per_rank(4) == 1


@pytest.mark.parametrize(("config", "world_size"), [(TrainConfig(global_batch=32), 3), (TrainConfig(32, 32, 3), 2)])
def test_a_batch_that_cannot_be_cut_evenly_is_refused(config: object, world_size: int) -> None:
    with pytest.raises(ValueError, match="train"):
        config.micro_batches_per_rank(world_size)


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
    train = asdict(TrainConfig())
    assert {key: train[key] for key in ("steps", "global_batch", "micro_batch", "precision", "zero_stage")} == {
        "steps": 1_000,
        "global_batch": 128,
        "micro_batch": 0,
        "precision": "auto",
        "zero_stage": 1,
    }
    assert (train["label_smoothing"], train["activation_memory_gib"], train["time_limit_minutes"]) == (0.0, 0.0, 0.0)
    assert (train["log_every_steps"], train["evaluate_every_steps"]) == (10, 0)
    assert (train["deterministic"], train["tf32"]) == (True, False)
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
    *((OptimizerConfig, key, 0, -1) for key in ("warmup_steps", "flat_steps")),
    *((OptimizerConfig, key, 0.0, -1e-9) for key in ("beta1", "beta2", "final_fraction", "decay_factor")),
    *((OptimizerConfig, key, 1.0, 1.0 + 1e-9) for key in ("final_fraction", "decay_factor")),
    *((OptimizerConfig, key, 1.0 - 1e-9, 1.0) for key in ("beta1", "beta2")),
    (OptimizerConfig, "epsilon", 1e-30, 0.0),
    *((TrainConfig, key, 1, 0) for key in ("steps", "global_batch", "log_every_steps")),
    *((TrainConfig, key, 0, -1) for key in ("micro_batch", "activation_memory_gib", "evaluate_every_steps")),
    (TrainConfig, "time_limit_minutes", 0.0, -0.1),
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


# Keys that belong to a schedule are taken beside it alone.
SCHEDULES = {"flat_steps": {"schedule": "flat_cosine"}, "decay_factor": {"schedule": "step", "decay_steps": (1,)}}


@pytest.mark.parametrize(("part", "key", "least", "wrong"), NUMBERS)
def test_a_number_is_taken_up_to_its_bound_and_no_further(part: type, key: str, least: float, wrong: float) -> None:
    beside = SCHEDULES.get(key, {})
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
