"""Engine: one optimizer step over a global batch through DeepSpeed, and its state under parameter names.

Facts of DeepSpeed 0.19.8 that it works around are named where they bite.

    start    counts and flags of all ranks | each micro-batch: forward, backward | norm, clip, update | losses
             summed in one exchange        | gradients travel with the last one  | on the device      | summed
    report   read a step later on a GPU: loss, norm, whether the step was applied, which flags any rank raised
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.custom import CustomModule
from model.network import AnyNetwork
from model.perceiver import Perceiver
from model.training.compilation import is_compiled
from trainer.config import OptimizerConfig, TrainConfig, joint_problems
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.engine import arithmetic
from trainer.engine.deepspeed_settings import settings
from trainer.engine.deepspeed_start import initialize, waiting_on_the_device
from trainer.engine.gradient_watch import GradientWatch
from trainer.engine.sharded_state import ShardedState
from trainer.engine.step_report import StartedStep, StepReport, Told
from trainer.engine.stopwatch import Stopwatch
from trainer.engine.unfreezing import Unfreezing
from trainer.engine.update import DeviceUpdate, HostUpdate, Update
from trainer.optim import optimizers
from trainer.optim.groups import freeze
from trainer.optim.lamb import Lamb
from trainer.optim.ownership import Saved
from trainer.optim.partitions import FlatGroups, Whole
from trainer.run_state import EngineState
from trainer.schedule import learning_rate
from trainer.tasks.objective import Objective, contagious


class Engine:
    """A network, its objective and its optimizer, spread over the world. Construction and every method: Collective."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        *,
        optimizer: OptimizerConfig,
        train: TrainConfig,
        world: World,
        ema: EmaConfig | None = None,
    ) -> None:
        # Here too: an engine may be made without a RunConfig that has checked it.
        compiles = isinstance(network, Perceiver) and is_compiled(network.config.compile, world.device.type)
        for key, sentence in joint_problems(optimizer, train, ema, compiles=compiles):
            raise ValueError(f"{key}: {sentence}")
        train = arithmetic.resolved(train, world.device.type)
        optimizer = optimizers.at_batch(optimizer, train.global_batch)
        self._objective = objective
        self._optimizer_config = optimizer
        self._train = train
        self._world = world
        self.num_micro_batches = train.micro_batches_per_rank(world.world_size)
        # Taken now: ZeRO 3 leaves a parameter without its shape.
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        freeze(network, optimizer)
        inner = optimizers.make(network, optimizer)
        self._unfreezing = Unfreezing(inner)
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
        self._gradient_watch = GradientWatch(network, train.steps, self._unfreezing.first_steps, world.sum)
        self._sharded = ShardedState(self._deepspeed, inner, shapes, world, ema)
        self._partitions = self._sharded.partitions
        # After `initialize`: at ZeRO 1 to 3 the optimizer updates tensors of DeepSpeed's and not the network's. Before
        # the first step: a run is saved before it.
        if optimizers.keeps_moments(inner):
            optimizers.zero_state(self._partitions.masters(), inner)
        elif getattr(self._deepspeed.optimizer, "optimizer", self._deepspeed.optimizer) is not inner:
            kind = type(inner).__name__
            raise ValueError(f"optimizer: DeepSpeed replaces {kind} by its own; take train.zero_stage=0")
        if isinstance(inner, Lamb):
            # At ZeRO 0 every rank has whole tensors: a sum would count each norm once per rank.
            parts = world.sum if train.zero_stage else torch.Tensor.clone
            num_parameters = len(list(self._deepspeed.module.parameters()))
            inner.bind(self._partitions.segments(), num_parameters, parts)
        self._update = self._updated_by(optimizer.clip_norm)
        self._num_steps = 0
        self._evaluates_average = ema is not None and ema.evaluate

    @property
    def network(self) -> nn.Module:
        """The network as it must be called: through DeepSpeed, which gathers its weights and casts."""
        return self._deepspeed  # type: ignore[no-any-return]  # DeepSpeed is untyped

    @property
    def steps_ahead(self) -> int:
        """The number of steps that may start before an older report is read, so that the device is never idle."""
        return int(self._world.device.type == "cuda")

    def step(self, batch: Batch) -> StepReport:
        """Update the weights by this rank's share of one global batch; the step is counted even if it is skipped."""
        return self.start(batch).report()

    def start(self, batch: Batch, flags: Sequence[bool] = ()) -> StartedStep:
        """Start such a step; on a GPU this returns long before it is done.

        The report tells which `flags` any rank raised: they travel with the counts of samples, and cost no exchange.
        """
        batch = batch.to(self._world.device)
        # A function of the step and no scheduler of DeepSpeed's, which stands still whenever a step is skipped.
        rate = learning_rate(self._optimizer_config, self._num_steps, self._train.steps)
        self._unfreezing.prepare(self._num_steps, rate)
        self._gradient_watch.prepare(self._num_steps)
        # Losses by input and norms by group cost passes and exchanges of their own.
        is_logged = self._train.logs(self._num_steps + 1)
        counts, raised = self._counts(batch, flags, by_input=is_logged)
        own = self._deepspeed.module
        if isinstance(own, CustomModule):
            own.begin(self._num_steps, self._world.rank)
        if isinstance(own, AnyNetwork):
            # Batch norm uses the statistics of the global batch: they are needed before the first micro-batch.
            own.observe(batch.arrays, batch.host_lengths, self._world.sum)
        watch = Stopwatch(self._world.device)
        parts = self._backward(batch.micro_batches(self.num_micro_batches), counts, watch, by_input=is_logged)
        # Before the update: it may change the loss scale, and it clips the gradients in place.
        scaler = getattr(self._deepspeed.optimizer, "loss_scaler", None)
        scale = getattr(scaler, "cur_scale", 1.0)
        can_rescale = self._train.precision == "fp16" and scale > self._deepspeed.optimizer.loss_scaler.min_scale
        squares = self._group_squares() if is_logged else {}
        norm, is_finite = self._update()
        self._unfreezing.settle(self._num_steps, self._partitions.by_group)
        if isinstance(own, AnyNetwork):
            # A skipped step leaves the running statistics as they are, too.
            own.settle(is_kept=is_finite)
        # A skipped step counts: the number of a step says which batch it takes.
        self._num_steps += 1
        if self._sharded.average:
            self._sharded.average.after(self._num_steps)
        totals = self._total(parts)
        losses = {task: total / counts[task] for task, total in totals.items()}
        told = Told(rate, self._train.global_batch, can_rescale, scale, watch)
        return StartedStep(
            told,
            loss=self._objective.loss(totals, counts),
            norm=norm,
            is_finite=is_finite,
            flags=raised,
            losses=losses,
            squares=squares,
            notes=self._gradient_watch.settle(self._num_steps),
        )

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Return by kind the whole tensors that this rank writes, copied to host memory.

        Buffers and frozen parameters are among the weights of rank 0. The next call overwrites what this one returned.
        """
        return self._sharded.snapshot()

    def progress(self) -> EngineState:
        """Return the numbers that belong to the state beside the tensors."""
        sharded = self._sharded
        late_steps, average = sharded.late_steps(), sharded.average.progress() if sharded.average else None
        applied, scale = sharded.applied_steps(), sharded.loss_scale()
        return EngineState(self._num_steps, applied, scale, average, sharded.details(), late_steps)

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        """Return by kind the shapes of all tensors that a checkpoint must have, by name."""
        return self._sharded.shapes()

    def restore(self, read: Saved, progress: EngineState) -> None:
        """Take over a state, saved at any ZeRO stage, precision and world size; its tensors have our `shapes`.

        Each tensor is read by one rank, which deals it out. ValueError on all ranks where one cannot read its own.
        """
        self._sharded.restore(read, progress)
        self._num_steps = progress.steps

    def evaluated(self) -> AbstractContextManager[None]:
        """Give the network within the block the weights that are evaluated: as it has them, or their moving average."""
        return self._sharded.averaged() if self._evaluates_average else nullcontext()

    def close(self) -> None:
        """Release what DeepSpeed holds: its hooks on the network."""
        self._deepspeed.destroy()

    def _updated_by(self, clip_norm: float) -> Update:
        if self._train.precision == "fp16" or not isinstance(self._partitions, Whole | FlatGroups):
            return HostUpdate(self._deepspeed, self._world.device)
        return DeviceUpdate(self._deepspeed, self._inner, self._partitions, clip_norm, self._world)

    def _counts(self, batch: Batch, flags: Sequence[bool], *, by_input: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Return what each sum is divided by, over all ranks, and how many ranks raised each flag."""
        # Before the forward pass, so that each micro-batch is divided by the count of the global batch: a mean of means
        # would weigh samples by the cut.
        counts = self._objective.counts(batch, by_input=by_input)
        # Filled on the device: a copy would come from memory that is not page-locked, and make the host wait.
        raised = [batch.weights.new_full((), float(flag)) for flag in flags]
        totals = self._world.sum(torch.stack([count.float() for count in (*counts.values(), *raised)]))
        # A task without a single sample has a sum of zero too.
        divisors = (torch.where(count == 0, 1.0, count) for count in totals[: len(counts)])
        return dict(zip(counts, divisors, strict=True)), totals[len(counts) :]

    def _backward(
        self, micro_batches: list[Batch], counts: dict[str, Tensor], watch: Stopwatch, *, by_input: bool
    ) -> dict[str, Tensor]:
        """Leave the reduced gradient in place; return this rank's sums."""
        totals = {task: torch.zeros_like(count) for task, count in counts.items()}
        others = self._objective.others(self._deepspeed, micro_batches, self._world)
        for index, micro_batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            # Before the forward pass: DeepSpeed asks for it in forward and backward. At ZeRO 0 and 1 only the last one
            # sends.
            self._deepspeed.set_gradient_accumulation_boundary(is_last)
            with watch:
                sums = self._objective.sums(self._deepspeed, micro_batch, by_input=by_input, others=others[index])
            loss = self._objective.loss(sums, counts)
            # DeepSpeed takes the mean over ranks and, unless told otherwise, over micro-batches. The counts have
            # divided by both already.
            with waiting_on_the_device(self._deepspeed.optimizer):
                self._deepspeed.backward(contagious(loss) * self._world.world_size, scale_wrt_gas=False)
            totals = {task: totals[task] + part.detach() for task, part in sums.items()}
            if not is_last:
                self._deepspeed.step()
        return totals

    def _group_squares(self) -> dict[str, Tensor]:
        squares = self._world.sum(torch.stack(self._partitions.gradient_squares()))
        found: dict[str, Tensor] = {}
        # Groups that differ in their rates alone are looked at together.
        for group, square in zip(self._inner.param_groups, squares.unbind(), strict=True):
            name = group["name"]
            found[name] = found[name] + square if name in found else square
        return found

    def _total(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        totals = self._world.sum(torch.stack([part.detach().float() for part in parts.values()]))
        return dict(zip(parts, totals, strict=True))
