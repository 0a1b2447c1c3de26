"""DeepSpeed's settings as a pure function of the typed configuration.

DeepSpeed accepts unknown keys in silence and clips at 1.0 unless told otherwise, so every value that matters is given.
"""

from typing import Any

from trainer.config import OptimizerConfig, TrainConfig

_BUCKET_ELEMENTS = 50_000_000
_GRADIENT_BYTES = 4
MIB = 1 << 20
_NODE = 8
"""Processes that a node usually has at most."""
_SMALL_PARAMETER = 10_000
_INITIAL_SCALE_POWER = 16
INITIAL_LOSS_SCALE = 2.0**_INITIAL_SCALE_POWER
"""The loss scale of fp16 before any overflow."""


def overlaps(train: TrainConfig, world_size: int, device_type: str) -> bool:
    """Return whether gradients travel during the backward pass at ZeRO 1 and 2.

    Between GPUs the exchange runs on a stream of its own. On a CPU it would take the cores from the backward pass.
    """
    if train.zero_stage not in (1, 2) or train.gradient_exchange != "auto":
        return train.gradient_exchange == "during_backward"
    return device_type == "cuda" and world_size > 1


def bucket_elements(train: TrainConfig, world_size: int, device_type: str) -> int:
    """Return how many gradients travel together.

    During the backward pass the first must leave early, so that buckets are small; among more processes than a node
    has, each exchange waits longer for its first byte, and buckets are larger.
    """
    if train.gradient_bucket_mib:
        return train.gradient_bucket_mib * MIB // _GRADIENT_BYTES
    if overlaps(train, world_size, device_type):
        return (32 if world_size <= _NODE else 128) * MIB // _GRADIENT_BYTES
    return _BUCKET_ELEMENTS


def settings(
    optimizer: OptimizerConfig,
    train: TrainConfig,
    *,
    num_micro_batches: int,
    world_size: int,
    device_type: str,
) -> dict[str, Any]:
    """Return the dictionary for deepspeed.initialize."""
    micro_batch = train.global_batch // world_size // num_micro_batches
    zero: dict[str, Any] = {
        "stage": train.zero_stage,
        "reduce_bucket_size": bucket_elements(train, world_size, device_type),
        "allgather_bucket_size": _BUCKET_ELEMENTS,
        # True makes the parameter mapping wrong, which checkpoints and LAMB rest on.
        "round_robin_gradients": False,
        # True copies every gradient into a bucket that is allocated again in each step: 5 to 10 % of a step of 300 ms.
        # Stage 2 needs it, to let go of the gradients of other ranks.
        "contiguous_gradients": train.zero_stage >= 2,
    }
    if train.zero_stage in (1, 2):
        zero["overlap_comm"] = overlaps(train, world_size, device_type)
    if train.zero_stage == 3:
        zero |= {
            # Smaller parameters stay gathered: a message each would cost more than the memory is worth.
            "stage3_param_persistence_threshold": _SMALL_PARAMETER,
            # True computes linear layers in another order: losses would depend on the stage.
            "memory_efficient_linear": False,
        }
    # In fp16, DeepSpeed scales the loss, and waits each step to see whether it scaled too far.
    is_judged_on_device = train.zero_stage < 3 and train.precision != "fp16"
    if train.zero_stage in (1, 2) and is_judged_on_device:
        # It would look at the device three times a step; see trainer/engine/update.py.
        zero["compute_grad_norm"] = False
    return {
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": num_micro_batches,
        # Given in every case: left out it would be 1.0. Where the device judges, trainer/engine/update.py clips.
        "gradient_clipping": 0.0 if is_judged_on_device else optimizer.clip_norm,
        "zero_optimization": zero,
        # Our LAMB is not on DeepSpeed's list of optimizers.
        "zero_allow_untested_optimizer": True,
        # It would wait for the device twice a step, to time it.
        "timers": {"throughput": {"enabled": False}},
        **({"communication_data_type": "bf16"} if train.gradient_dtype == "bf16" else {}),
        **_precision(train),
    }


def _precision(train: TrainConfig) -> dict[str, Any]:
    if train.precision == "bf16":
        # Autocast: weights, gradients and their sums stay fp32, so that every stage computes the same; DeepSpeed's bf16
        # block has another optimizer for each stage (docs/decisions/6-half-precision-is-autocast.md). The empty list
        # keeps DeepSpeed from reducing the gradients of linear layers in bf16.
        return {"torch_autocast": {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}}
    if train.precision == "fp16":
        # 0 stands for a scale that DeepSpeed adapts.
        scale = {"loss_scale": 0, "initial_scale_power": _INITIAL_SCALE_POWER, "loss_scale_window": 1000}
        return {"fp16": {"enabled": True, **scale}}
    return {}
