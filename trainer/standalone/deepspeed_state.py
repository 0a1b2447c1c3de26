"""DeepSpeedState: an engine created by the user's deepspeed.initialize, as tensors under parameter names."""

from typing import Any

import torch
from torch import Tensor, nn

from data_shards.files.quoting import counted
from trainer.distributed.world import World
from trainer.engine.sharded_state import ShardedState
from trainer.optim.json_state import packed, unpacked
from trainer.optim.optimizers import MOMENTS, keeps_moments, zero_state
from trainer.optim.ownership import Saved
from trainer.run_state import EngineState

# micro_steps too, which DeepSpeed's own checkpoints leave out: the end of an accumulation would shift by what is
# missing.
_COUNTERS = ("global_steps", "global_samples", "micro_steps", "skipped_steps")


def is_deepspeed(module: nn.Module) -> bool:
    """Return whether a module is an engine of DeepSpeed's, without importing DeepSpeed."""
    return hasattr(module, "zero_optimization_stage") and hasattr(module, "backward")


class DeepSpeedState:
    """The state of such an engine. See trainer.checkpoint.state.Checkpointed."""

    def __init__(self, engine: Any, world: World) -> None:  # noqa: ANN401  # DeepSpeed is untyped
        """ValueError where the engine keeps its state in a way that is not understood."""
        if sentence := _problem(engine):
            raise ValueError(f"engine: {sentence}")
        self._engine = engine
        inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
        self._groups = inner.param_groups
        # At ZeRO 3 a parameter's own shape is that of nothing.
        shapes = {
            name: torch.Size(getattr(tensor, "ds_shape", tensor.shape))
            for name, tensor in engine.module.state_dict(keep_vars=True).items()
        }
        self._sharded = ShardedState(engine, inner, shapes, world)
        # An engine that has made no step has no moments yet, and a checkpoint always has them.
        if keeps_moments(inner):
            zero_state((part for part in self._sharded.partitions.masters() if not _has_moments(inner, part)), inner)

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors that this rank writes."""
        return self._sharded.snapshot()

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        """Return the shapes of all tensors."""
        return self._sharded.shapes()

    def progress(self) -> EngineState:
        """Return the engine's counters, its loss scale and the options of its parameter groups."""
        counters = {name: int(getattr(self._engine, name)) for name in _COUNTERS}
        options = [{key: value for key, value in group.items() if key != "params"} for group in self._groups]
        sharded = self._sharded
        of_groups = packed(options, "optimizer.param_groups")
        details = {"counters": counters, "options": of_groups, **sharded.details()}
        return EngineState(counters["global_steps"], sharded.applied_steps(), sharded.loss_scale(), details=details)

    def restore(self, read: Saved, progress: EngineState) -> None:
        """Take over a state."""
        options = progress.details.get("options")
        if options is None or len(options) != len(self._groups):
            raise ValueError(
                f"optimizer: the checkpoint has {counted(len(options or ()), 'parameter group')} of a DeepSpeed "
                f"engine, {len(self._groups)} are here; take the engine that wrote it, or another folder"
            )
        self._sharded.restore(read, progress)
        for group, saved in zip(self._groups, options, strict=True):
            group.update(unpacked(saved))
        for name, value in progress.details["counters"].items():
            setattr(self._engine, name, value)


def _has_moments(inner: torch.optim.Optimizer, part: Tensor) -> bool:
    return all(moment in inner.state.get(part, {}) for moment in MOMENTS)


def _problem(engine: Any) -> str:  # noqa: ANN401  # DeepSpeed is untyped
    """Return why the state of an engine cannot be kept, if so."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    if engine.zero_offload_optimizer() or engine.zero_offload_param():
        return "offloads its state to the host or a disk, which is not understood; leave offload_* out"
    if stage in (1, 2) and engine.zero_round_robin_gradients():
        return "zero_optimization.round_robin_gradients deals parameters out in another way; set it to false"
    layouts = {0: "", 1: "single_partition_of_fp32_groups", 2: "single_partition_of_fp32_groups"}
    if not (
        inner is optimizer if stage == 0 else hasattr(optimizer, layouts.get(stage, "fp32_partitioned_groups_flat"))
    ):
        return (
            f"at ZeRO {stage} it wraps its optimizer in {type(optimizer).__name__}, which is not understood; take "
            "zero_optimization.stage 1, 2 or 3"
        )
    return ""
