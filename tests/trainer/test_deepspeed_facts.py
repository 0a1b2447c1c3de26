"""What the trainer relies on in DeepSpeed 0.19.8: an upgrade that changes any of it fails here, by name."""

import inspect
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import OPTIMIZER, Network, engine, whole_batch

from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine.deepspeed_settings import settings

pytestmark = pytest.mark.slow


def read_by_deepspeed(fields: dict[str, object]) -> object:
    from deepspeed.runtime.config import DeepSpeedConfig

    return DeepSpeedConfig({"train_batch_size": 1, **fields})


def test_it_clips_at_one_unless_told_otherwise_so_the_settings_always_say(world: World) -> None:
    assert read_by_deepspeed({}).gradient_clipping == 1.0
    for stage in range(4):
        given = settings(OPTIMIZER, TrainConfig(zero_stage=stage), num_micro_batches=1, world_size=1, device_type="cpu")
        assert given["gradient_clipping"] == (OPTIMIZER.clip_norm if stage == 3 else 0.0)


def test_it_accepts_unknown_keys_in_silence_so_nobody_writes_them_by_hand(world: World) -> None:
    assert read_by_deepspeed({"zero_optimisation": {"stage": 2}}).zero_optimization_stage == 0


def test_the_op_that_would_be_compiled_at_start_up_can_be_switched_off_by_this_name(world: World) -> None:
    engine(world).close()
    from deepspeed.ops import __compatible_ops__

    assert __compatible_ops__["deepspeed_shm_comm"] is False


def test_the_optimizer_that_compiles_itself_when_it_is_imported_is_left_uncompiled(world: World) -> None:
    engine(world).close()
    from deepspeed.runtime.zero.muon import original_muon

    assert not hasattr(original_muon.zeropower_via_newtonschulz5, "_torchdynamo_orig_callable")
    # What that test looks at is there where a function is compiled.
    assert hasattr(torch.compile(abs_of, backend="eager"), "_torchdynamo_orig_callable")


def abs_of(values: torch.Tensor) -> torch.Tensor:
    return values.abs()


def test_at_stage_0_the_optimizer_is_the_bare_one_and_no_norm_is_reported(world: World) -> None:
    trained = engine(world, zero_stage=0)
    trained.step(whole_batch(0))
    assert type(trained._deepspeed.optimizer) is torch.optim.AdamW
    assert trained._deepspeed.get_global_grad_norm() is None
    trained.close()


def test_at_stage_3_the_optimizer_says_whether_the_gradient_was_finite(world: World) -> None:
    trained = engine(world, zero_stage=3)
    spoiled = whole_batch(1)
    spoiled.arrays["points"].fill_(float("inf"))
    for batch, is_finite in ((whole_batch(0), True), (spoiled, False), (whole_batch(2), True)):
        trained.step(batch)
        assert trained._deepspeed.optimizer.overflow is not is_finite
        assert math.isfinite(trained._deepspeed.get_global_grad_norm()) is is_finite
    trained.close()


@pytest.mark.parametrize("stage", [1, 2])
def test_at_stages_1_and_2_the_optimizer_looks_at_no_gradient(world: World, stage: int) -> None:
    trained = engine(world, zero_stage=stage)
    spoiled = whole_batch(0)
    spoiled.arrays["points"].fill_(float("inf"))
    assert trained.step(spoiled).is_skipped
    assert trained._deepspeed.optimizer.overflow is False
    assert trained._deepspeed.get_global_grad_norm() is None
    trained.close()


@pytest.mark.parametrize("stage", [1, 2])
def test_the_parameter_mapping_gives_the_fp32_weights(world: World, stage: int) -> None:
    trained = engine(world, zero_stage=stage)
    trained.step(whole_batch(0))
    for parameter in trained._deepspeed.module.parameters():
        if parameter.requires_grad:
            at = parameter._hp_mapping.lp_fragment_address
            assert (at.start, at.numel) == (0, parameter.numel())
            assert torch.equal(parameter._hp_mapping.hp_fragment, parameter.view(-1))
    trained.close()


def test_stage_3_says_where_each_parameter_lies_and_keeps_small_ones_gathered(world: World) -> None:
    trained = engine(world, zero_stage=3)
    zero = trained._deepspeed.optimizer
    for parameter in (parameter for group in zero.fp16_groups for parameter in group):
        index, offset, numel = zero.grad_position[zero.get_param_id(parameter)]
        assert numel == parameter.ds_tensor.ds_numel
        assert torch.equal(zero.fp32_partitioned_groups_flat[index].narrow(0, offset, numel), parameter.ds_tensor.data)
    assert 0 < len(zero.persistent_parameters) < len(list(Network(0).parameters()))
    trained.close()


def test_the_loss_is_scaled_only_for_zero_optimizers_so_fp16_at_stage_0_is_refused(world: World) -> None:
    from deepspeed.runtime.base_optimizer import ZeROOptimizer
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer

    assert "isinstance(self.optimizer, ZeROOptimizer)" in inspect.getsource(sys.modules[DeepSpeedEngine.__module__])
    assert not issubclass(FP16_Optimizer, ZeROOptimizer)
    assert "precision" in dict(TrainConfig(precision="fp16", zero_stage=0).problems())


def test_the_loss_scaler_has_the_fields_that_a_checkpoint_keeps(world: World) -> None:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    scaler = DynamicLossScaler(2.0**16, 1000, 1.0, 2, False)
    assert {"cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis"} <= vars(scaler).keys()


def test_a_parameter_without_axes_breaks_it_so_the_network_has_none(world: World) -> None:
    class Scalar(Network):
        def __init__(self) -> None:
            super().__init__(seed=0)
            self.scale = torch.nn.Parameter(torch.tensor(1.0))

    import deepspeed

    network = Scalar()
    with pytest.raises(RuntimeError, match="cannot be 0 to view"):
        deepspeed.initialize(
            model=network, optimizer=torch.optim.AdamW(network.parameters()), config={"train_batch_size": 1}
        )


def test_its_groups_are_made_by_the_function_whose_timeout_is_replaced(world: World) -> None:
    # By name: the attribute deepspeed.comm.torch is torch itself.
    source = inspect.getsource(sys.modules["deepspeed.comm.torch"].TorchBackend.new_group)
    assert "torch.distributed.new_group(ranks)" in source
