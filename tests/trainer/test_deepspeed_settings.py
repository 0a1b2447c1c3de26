"""DeepSpeed is told everything that matters: what it would choose by itself decides other numbers."""

from types import SimpleNamespace

import pytest
from deepspeed.accelerator import get_accelerator

from trainer.config import OptimizerConfig, TrainConfig
from trainer.engine.deepspeed_settings import INITIAL_LOSS_SCALE, settings
from trainer.engine.deepspeed_start import waiting_on_the_device


def given(**train: object) -> dict:
    config = TrainConfig(global_batch=32, **train)
    return settings(OptimizerConfig(clip_norm=0.5), config, num_micro_batches=4, world_size=2, device_type="cpu")


@pytest.mark.parametrize("stage", range(4))
def test_the_cut_of_the_batch_the_stage_and_the_clipping_are_said(stage: int) -> None:
    told = given(zero_stage=stage)
    assert told["train_batch_size"] == 32
    assert told["train_micro_batch_size_per_gpu"] == 4
    assert told["gradient_accumulation_steps"] == 4
    assert told["gradient_clipping"] == (0.5 if stage == 3 else 0.0), "the engine clips itself up to stage 2"
    assert told["timers"] == {"throughput": {"enabled": False}}, "it would wait for the device twice a micro-batch"
    assert told["zero_allow_untested_optimizer"] is True
    of_stage = {
        0: {},
        1: {"overlap_comm": False, "compute_grad_norm": False},
        2: {"overlap_comm": False, "compute_grad_norm": False},
        3: {"stage3_param_persistence_threshold": 10_000, "memory_efficient_linear": False},
    }
    assert told["zero_optimization"] == {
        "stage": stage,
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 50_000_000,
        "round_robin_gradients": False,
        "contiguous_gradients": stage >= 2,
        **of_stage[stage],
    }


@pytest.mark.parametrize("stage", [1, 2])
def test_in_fp16_deepspeed_itself_judges_and_clips(stage: int) -> None:
    told = given(zero_stage=stage, precision="fp16")
    assert told["gradient_clipping"] == 0.5
    assert "compute_grad_norm" not in told["zero_optimization"]


def test_only_the_precision_that_was_asked_for_is_switched_on() -> None:
    assert not {"fp16", "torch_autocast"} & given(precision="fp32").keys()
    autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert given(precision="bf16")["torch_autocast"] == autocast
    # A scale of 0 is one that follows the overflows.
    scaled = {"enabled": True, "loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000}
    assert given(precision="fp16")["fp16"] == scaled
    assert INITIAL_LOSS_SCALE == 2**16


def exchange(stage: int, world_size: int, device_type: str, **train: object) -> tuple[bool | None, int]:
    config = TrainConfig(global_batch=world_size, zero_stage=stage, **train)
    zero = settings(OptimizerConfig(), config, num_micro_batches=1, world_size=world_size, device_type=device_type)[
        "zero_optimization"
    ]
    return zero.get("overlap_comm"), zero["reduce_bucket_size"]


@pytest.mark.parametrize("stage", [1, 2])
def test_gradients_travel_during_the_backward_pass_between_gpus_and_after_it_elsewhere(stage: int) -> None:
    mib = 2**20 // 4
    assert exchange(stage, 4, "cpu") == exchange(stage, 1, "cuda") == (False, 50_000_000)
    assert exchange(stage, 2, "cuda") == exchange(stage, 8, "cuda") == (True, 32 * mib)
    assert exchange(stage, 9, "cuda") == (True, 128 * mib)
    assert exchange(stage, 9, "cuda", gradient_bucket_mib=3) == (True, 3 * mib)
    assert exchange(stage, 1024, "cuda") == (True, 128 * mib)
    assert exchange(stage, 8, "cuda", gradient_exchange="after_backward") == (False, 50_000_000)
    assert exchange(stage, 2, "cpu", gradient_exchange="during_backward", gradient_bucket_mib=1) == (True, mib)


@pytest.mark.parametrize("stage", [0, 3])
def test_other_stages_leave_the_time_of_the_exchange_to_deepspeed(stage: int) -> None:
    assert exchange(stage, 8, "cuda") == (None, 50_000_000)
    [(key, _)] = TrainConfig(zero_stage=stage, gradient_exchange="during_backward").problems()
    assert key == "gradient_exchange"


def test_gradients_travel_in_fp32_unless_bf16_is_asked_for() -> None:
    assert "communication_data_type" not in given()
    assert given(gradient_dtype="bf16")["communication_data_type"] == "bf16"
    for refused in ({"zero_stage": 3}, {"precision": "fp16"}):
        assert [key for key, _ in TrainConfig(gradient_dtype="bf16", **refused).problems()] == ["gradient_dtype"]


class Stream:
    """Remembers which streams it waits for."""

    def __init__(self) -> None:
        self.waits: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waits.append(other)


def test_streams_wait_for_each_other_where_deepspeed_would_stop_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = get_accelerator()
    computing, exchanging, stopped = Stream(), Stream(), []
    monkeypatch.setattr(type(accelerator), "current_stream", lambda *_: computing)
    monkeypatch.setattr(type(accelerator), "synchronize", lambda *_: stopped.append(1))
    for overlap in (True, False):
        with waiting_on_the_device(SimpleNamespace(overlap_comm=overlap, reduction_stream=exchanging)):
            accelerator.synchronize()
    accelerator.synchronize()
    # Gradients must be there before they travel, and have arrived before their memory is used again.
    assert (exchanging.waits, computing.waits) == ([computing], [exchanging])
    assert len(stopped) == 2
