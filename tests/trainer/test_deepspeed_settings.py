"""DeepSpeed is told everything that matters: what it would choose by itself decides other numbers."""

import pytest

from trainer.config import OptimizerConfig, TrainConfig
from trainer.deepspeed_settings import settings


def given(**train: object) -> dict:
    config = TrainConfig(global_batch=32, **train)
    return settings(OptimizerConfig(clip_norm=0.5), config, num_micro_batches=4, world_size=2)


@pytest.mark.parametrize("stage", range(4))
def test_the_cut_of_the_batch_the_stage_and_the_clipping_are_said(stage: int) -> None:
    told = given(zero_stage=stage)
    assert told["train_batch_size"] == 32
    assert told["train_micro_batch_size_per_gpu"] == 4
    assert told["gradient_accumulation_steps"] == 4
    assert told["gradient_clipping"] == (0.5 if stage == 3 else 0.0), "below stage 3 the engine clips itself"
    assert told["zero_allow_untested_optimizer"] is True
    zero = told["zero_optimization"]
    assert zero["stage"] == stage
    assert zero["round_robin_gradients"] is False
    assert zero["contiguous_gradients"] is (stage >= 2)
    assert zero.get("memory_efficient_linear") is (False if stage == 3 else None)
    assert ("stage3_param_persistence_threshold" in zero) is (stage == 3)


def test_only_the_precision_that_was_asked_for_is_switched_on() -> None:
    assert not {"fp16", "torch_autocast"} & given(precision="fp32").keys()
    autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert given(precision="bf16")["torch_autocast"] == autocast
    # A scale of 0 is one that follows the overflows.
    scaled = {"enabled": True, "loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000}
    assert given(precision="fp16")["fp16"] == scaled
