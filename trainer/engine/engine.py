"""Engine: one optimizer step over a global batch through DeepSpeed, and its state under parameter names.

Facts of DeepSpeed 0.19.8 that it works around are named where they bite.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig, joint_problems
from trainer.distributed.world import World
from trainer.engine import arithmetic
from trainer.engine.deepspeed_settings import settings
from trainer.engine.deepspeed_start import gathered, initialize, waiting_on_the_device
from trainer.engine.step_report import StartedStep, StepReport, Told
from trainer.engine.stopwatch import Stopwatch
from trainer.engine.update import DeviceUpdate, HostUpdate, Update
from trainer.optim import optimizers
from trainer.optim.lamb import Lamb
from trainer.optim.ownership import Ownership, ReadTensor
from trainer.optim.partitions import KINDS, WEIGHT, EvenParameters, FlatGroups, Partitions, Piece, Whole
from trainer.run_state import EngineState
from trainer.tasks.objective import Objective, contagious

Untyped: TypeAlias = Any
"""Objects of DeepSpeed, which has no types."""

_LOSS_SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class Engine:
    """A network, its objective and its optimizer, spread over the world. Construction and every method: Collective."""

    def __init__(
        self, network: nn.Module, objective: Objective, *, optimizer: OptimizerConfig, train: TrainConfig, world: World
    ) -> None:
        for key, sentence in joint_problems(optimizer, train):
            raise ValueError(f"{key}: {sentence}")
        train = arithmetic.resolved(train, world.device.type)
        self._objective = objective
        self._optimizer_config = optimizer
        self._train = train
        self._world = world
        self.num_micro_batches = train.micro_batches_per_rank(world.world_size)
        # Taken now: ZeRO 3 leaves a parameter without its shape.
        self._shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        self._trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        inner = optimizers.make(network, optimizer)
        self._deepspeed = initialize(
            network.to(world.device),
            inner,
            settings(
                optimizer,
                train,
                num_micro_batches=self.num_micro_batches,
                world_size=world.world_size,
                device_type=world.device.type,
            ),
            train,
            world,
        )
        self._inner = inner
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._deepspeed.module.named_parameters()}
        self._partitions = _partitions(self._deepspeed, names, train.zero_stage, world.rank)
        optimizers.zero_state(self._partitions.masters(), inner)
        if isinstance(inner, Lamb):
            parts = world.sum if train.zero_stage else torch.Tensor.clone
            inner.bind(self._partitions.segments(), len(names), parts)
        self._update = self._updated_by(optimizer.clip_norm)
        self._ownership: Ownership | None = None
        self._num_steps = 0

    @property
    def network(self) -> nn.Module:
        """The network as it must be called: through DeepSpeed, which gathers its weights and casts."""
        return self._deepspeed  # type: ignore[no-any-return]  # DeepSpeed is untyped

    @property
    def steps_ahead(self) -> int:
        """How many steps may be started before the report of an older one is read, so that the device is never idle."""
        return int(self._world.device.type == "cuda")

    def step(self, batch: Batch) -> StepReport:
        """Update the weights by this rank's share of one global batch; the step is counted even if it is skipped."""
        return self.start(batch).report()

    def start(self, batch: Batch, flags: Sequence[bool] = ()) -> StartedStep:
        """Start such a step; on a GPU this returns long before it is done.

        The report tells which `flags` any rank raised: they travel with the counts of samples, and cost no exchange.
        """
        batch = batch.to(self._world.device)
        rate = optimizers.learning_rate(self._optimizer_config, self._num_steps, self._train.steps)
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = rate
        is_logged = self._train.logs(self._num_steps + 1)
        counts, raised = self._counts(batch, flags, by_modality=is_logged)
        own = self._deepspeed.module
        if isinstance(own, Perceiver):
            own.observe(batch.arrays, batch.host_lengths, self._world.sum)
        watch = Stopwatch(self._world.device)
        parts = self._backward(batch.micro_batches(self.num_micro_batches), counts, watch, by_modality=is_logged)
        scale = getattr(getattr(self._deepspeed.optimizer, "loss_scaler", None), "cur_scale", 1.0)
        squares = self._group_squares() if is_logged else {}
        norm, is_finite = self._update()
        if isinstance(own, Perceiver):
            own.settle(is_kept=is_finite)
        self._num_steps += 1
        totals = self._total(parts)
        losses = {task: total / counts[task] for task, total in totals.items()}
        told = Told(rate, self._train.global_batch, self._train.precision == "fp16", scale, watch)
        return StartedStep(
            told,
            loss=self._objective.loss(totals, counts),
            norm=norm,
            is_finite=is_finite,
            flags=raised,
            losses=losses,
            squares=squares,
        )

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Return, for each of KINDS, the whole tensors that this rank writes, copied to host memory.

        Buffers and frozen parameters are among the weights of rank 0. The next call overwrites what this one returned.
        """
        pieces = list(self._partitions.pieces())
        tensors = self._owning(pieces).snapshot(pieces)
        with self._fixed() as fixed:
            if self._world.is_first:
                tensors[WEIGHT] |= {name: tensor.detach().cpu().clone() for name, tensor in fixed.items()}
        return tensors

    def progress(self) -> EngineState:
        """Return the numbers that belong to the state beside the tensors."""
        masters = self._partitions.masters()
        applied = float(self._inner.state[masters[0]]["step"]) if masters else 0.0
        scaler = getattr(self._deepspeed.optimizer, "loss_scaler", None)
        scale = {field: getattr(scaler, field) for field in _LOSS_SCALER_FIELDS if hasattr(scaler, field)}
        return EngineState(self._num_steps, applied, scale)

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        """Return, for each of KINDS, the shapes of all tensors of a checkpoint by name."""
        trained = {name: self._shapes[name] for name in self._trained}
        return {kind: self._shapes if kind == WEIGHT else trained for kind in KINDS}

    def restore(self, read: ReadTensor, progress: EngineState) -> None:
        """Take over a state, saved at any ZeRO stage, precision and world size; its tensors have our `shapes`.

        Each tensor is read by one rank, which deals it out. ValueError on all ranks where one cannot read its own.
        """
        with torch.no_grad():
            pieces = list(self._partitions.pieces())
            owning = self._owning(pieces)
            fixed_names = self._shapes.keys() - set(self._trained) if self._world.is_first else set()
            unmoved: dict[str, Tensor] = {}

            def read_own() -> None:
                owning.read(pieces, read)
                unmoved.update((name, read(WEIGHT, name, 0, self._shapes[name].numel())) for name in fixed_names)

            self._world.from_each(read_own)
            owning.deal(pieces)
            with self._fixed() as fixed:
                for name, tensor in fixed.items():
                    if self._world.is_first:
                        tensor.copy_(unmoved[name].view(tensor.shape))
                    self._world.spread(tensor, 0)
            self._partitions.refresh()
        for master in self._partitions.masters():
            self._inner.state[master]["step"].fill_(progress.applied_steps)
        self._num_steps = progress.steps
        scaler = getattr(self._deepspeed.optimizer, "loss_scaler", None)
        for field, value in progress.loss_scale.items():
            if hasattr(scaler, field):
                setattr(scaler, field, value)

    def close(self) -> None:
        """Release what DeepSpeed holds: its hooks on the network."""
        self._deepspeed.destroy()

    def _owning(self, pieces: list[Piece]) -> Ownership:
        if self._ownership is None:
            self._ownership = Ownership(pieces, self._shapes, self._world)
        return self._ownership

    def _updated_by(self, clip_norm: float) -> Update:
        if self._train.precision == "fp16" or not isinstance(self._partitions, Whole | FlatGroups):
            return HostUpdate(self._deepspeed, self._world.device)
        return DeviceUpdate(self._deepspeed, self._inner, self._partitions, clip_norm, self._world)

    def _counts(self, batch: Batch, flags: Sequence[bool], *, by_modality: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Return what each sum is divided by, over all ranks, and how many ranks raised each flag."""
        counts = self._objective.counts(batch, by_modality=by_modality)
        # Filled on the device: a copy would come from memory that is not page-locked, and make the host wait.
        raised = [torch.full((), float(flag), device=self._world.device) for flag in flags]
        totals = self._world.sum(torch.stack([count.float() for count in (*counts.values(), *raised)]))
        # A task without a single sample has a sum of zero too.
        divisors = (torch.where(count == 0, 1.0, count) for count in totals[: len(counts)])
        return dict(zip(counts, divisors, strict=True)), totals[len(counts) :]

    def _backward(
        self, micro_batches: list[Batch], counts: dict[str, Tensor], watch: Stopwatch, *, by_modality: bool
    ) -> dict[str, Tensor]:
        """Leave the reduced gradient in place; return this rank's sums."""
        totals = {task: torch.zeros((), device=self._world.device) for task in counts}
        for index, micro_batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            self._deepspeed.set_gradient_accumulation_boundary(is_last)
            with watch:
                sums = self._objective.sums(self._deepspeed, micro_batch, by_modality=by_modality)
            loss = self._objective.loss(sums, counts)
            # DeepSpeed takes the mean over the ranks; the sums want the sum.
            with waiting_on_the_device(self._deepspeed.optimizer):
                self._deepspeed.backward(contagious(loss) * self._world.world_size, scale_wrt_gas=False)
            totals = {task: totals[task] + part.detach() for task, part in sums.items()}
            if not is_last:
                self._deepspeed.step()
        return totals

    def _group_squares(self) -> dict[str, Tensor]:
        squares = self._world.sum(torch.stack(self._partitions.gradient_squares()))
        return dict(zip((group["name"] for group in self._inner.param_groups), squares.unbind(), strict=True))

    def _total(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        totals = self._world.sum(torch.stack([part.detach().float() for part in parts.values()]))
        return dict(zip(parts, totals, strict=True))

    @contextlib.contextmanager
    def _fixed(self) -> Iterator[dict[str, Tensor]]:
        """Give what no optimizer moves, to read or to overwrite: saved buffers, and frozen parameters."""
        module = self._deepspeed.module
        saved = module.state_dict(keep_vars=True).keys()
        buffers = {name: buffer for name, buffer in module.named_buffers() if name in saved}
        frozen = {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}
        with gathered(list(frozen.values()), self._train.zero_stage):
            yield {**buffers, **{name: parameter.data for name, parameter in frozen.items()}}


def _partitions(deepspeed: Untyped, names: dict[Tensor, str], zero_stage: int, rank: int) -> Partitions:
    match zero_stage:
        case 0:
            return Whole(names, deepspeed.optimizer, rank)
        case 1 | 2:
            return FlatGroups(names, deepspeed.optimizer)
        case _:
            return EvenParameters(names, deepspeed.optimizer, rank)
