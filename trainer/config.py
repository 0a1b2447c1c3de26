"""The configuration of training: optimizer, length, batch, checkpoints, health checks, profiling.

A default is a promise: a file that leaves a key out means the same in every release (tests/trainer/test_config.py).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.ema_config import EmaConfig
from trainer.optimizer_choice import ADAMW, LAMB, OF_BUILT_IN, name_problems, stage_problems, unknown
from trainer.patterns import factor_problems, rules, step_problems
from trainer.ranges import at_least, within
from trainer.schedule import schedule_problems

_MOST_TIMEOUT_SECONDS = 2_000_000
"""gloo counts milliseconds in 32 bits."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, its schedule, and what is done to a gradient before it."""

    name: str = field(default=ADAMW, metadata={"unknown": unknown})
    """adamw, lamb as the papers used it (ZeRO 0, 1 and 2), muon (ZeRO 0), or a plug-in's; see docs/training.md."""
    learning_rate: float = 1e-3
    """Peak of the schedule; where reference_batch is set, that of a global batch of so many samples."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment; the papers' LAMB used 1e-6."""
    weight_decay: float = 0.0
    """Decoupled decay of every parameter except biases and the parameters of normalisations."""
    # The second paper's ImageNet networks were clipped at 10, and their labels smoothed by 0.1 (appendix A.1).
    clip_norm: float = 1.0
    """Largest global norm of a gradient; longer ones are scaled down. 0 never clips."""
    reference_batch: int = 0
    """Global batch for which learning_rate is meant: the peak is learning_rate * train.global_batch / reference_batch,
    as the second paper has it (5e-4 for 256). 0 takes learning_rate as it is."""
    schedule: Literal["cosine", "constant", "step", "flat_cosine", "stable_decay"] = "cosine"
    """The learning rate after the warm-up; docs/training.md has the formulas."""
    # None by default: the second paper found that it "often prevented models from training" with LAMB (appendix A.1).
    warmup_steps: int = 0
    """Steps in which the rate rises linearly from peak / warmup_steps to the peak."""
    final_fraction: float = 0.0
    """Share of the peak at which the cosine, or the decay of stable_decay, ends."""
    # That paper's schedule is flat_cosine: half of the 110 epochs at the peak, then a cosine to 0.
    flat_steps: int = 0
    """flat_cosine: steps, warm-up included, before the cosine begins."""
    decay_steps: tuple[int, ...] = ()
    """step: the steps at which the rate is multiplied by decay_factor."""
    decay_factor: float = 0.1
    """step: what the rate is multiplied by."""
    cooldown_steps: int = 0
    """stable_decay: the last steps, in which the rate falls linearly; before them it is the peak."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that keep their values, such as encoder.*; PATTERN=STEP trains them from that step on.
    Where several patterns match a parameter, the last one counts, here and below."""
    rate_factors: tuple[str, ...] = ()
    """PATTERN=FACTOR: what the learning rate of these parameters is multiplied by."""
    decay_factors: tuple[str, ...] = ()
    """PATTERN=FACTOR: what the weight decay of these parameters is multiplied by."""
    layer_decay: float = 1.0
    """What the learning rate is multiplied by for each layer between a parameter and the decoder, such as 0.75."""
    options: dict[str, Any] = field(default_factory=dict)
    """The fields of a plug-in's optimizer, such as {momentum: 0.95}."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        found = list(self._own_problems())
        yield from found
        # Of a value that is none it does not matter who reads it.
        set_here = {
            key: getattr(type(self), key) for key in OF_BUILT_IN if getattr(self, key) != getattr(type(self), key)
        }
        others = (*name_problems(self.name, self.options, set_here), *schedule_problems(self))
        yield from ((key, sentence) for key, sentence in others if key not in dict(found))

    def _own_problems(self) -> Iterator[tuple[str, str]]:
        yield from at_least(
            self,
            0.0,
            "learning_rate",
            "reference_batch",
            "weight_decay",
            "clip_norm",
            "warmup_steps",
            "flat_steps",
            "cooldown_steps",
        )
        yield from within(self, 0.0, 1.0, "final_fraction", "decay_factor")
        for name in ("beta1", "beta2"):
            # At 1 the bias correction of the moment divides by 0.
            if not 0 <= getattr(self, name) < 1:
                yield name, f"must be from 0 to below 1, got {getattr(self, name)}"
        if not 0 < self.epsilon < math.inf:
            yield "epsilon", f"must be above 0, got {self.epsilon}; 1e-8 is usual"
        yield from (("freeze", sentence) for sentence in step_problems(self.freeze))
        for name in ("rate_factors", "decay_factors"):
            yield from ((name, sentence) for sentence in factor_problems(getattr(self, name)))
        if self.decay_factors and not self.weight_decay:
            yield "decay_factors", "multiplies optimizer.weight_decay, which is 0; set that too"
        if not 0 < self.layer_decay <= 1:
            yield "layer_decay", f"must be above 0 and at most 1, got {self.layer_decay}"


@dataclass(frozen=True)
class TrainConfig:
    """Length, batch, precision and partitioning. How many processes share the work is not part of it."""

    steps: int = 1_000
    """Optimizer steps of the whole run."""
    global_batch: int = 128
    """Samples of one optimizer step over all processes."""
    micro_batch: int = 0
    """Samples that one process takes at once; 0 takes its whole share. Fewer need less memory; no result changes."""
    activation_memory_gib: float = 0.0
    """Memory of one process for the activations of a micro-batch: the fastest model.activation_checkpointing that fits
    is taken; 0 takes the one that is set."""
    # Why bf16 is autocast over fp32 weights: docs/decisions/6-half-precision-is-autocast.md.
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """The precision of the network. Updated weights, moments and sums are fp32 in all of them. auto is bf16 on
    a GPU and fp32 elsewhere, chosen at the first start of a run and kept wherever it resumes."""
    # Which kernels it leaves, and why: docs/decisions/7-a-gpu-gives-the-same-bits.md.
    deterministic: bool = True
    """On a GPU, use only deterministic kernels. Without them a resumed run does not end with the same bits."""
    tf32: bool = False
    """On a GPU, round the factors of fp32 products to 10 bits of mantissa (TF32); bf16 products stay as they
    are."""
    zero_stage: int = 1
    """What DeepSpeed partitions: 0 nothing, 1 optimizer moments, 2 gradients too, 3 weights too."""
    gradient_dtype: Literal["fp32", "bf16"] = "fp32"
    """The precision in which gradients are sent at zero_stage 0, 1 and 2. bf16 halves the bytes and rounds each part;
    fp16 sends fp16."""
    # On a CPU the exchange would take the cores from the backward pass that it is to hide behind.
    gradient_exchange: Literal["auto", "during_backward", "after_backward"] = "auto"
    """When the gradients travel at zero_stage 1 and 2; auto is during the backward pass between GPUs, after it
    elsewhere."""
    gradient_bucket_mib: int = 0
    """MiB of gradients that travel together at zero_stage 1 to 3; 0 takes 32 during the backward pass among up to 8
    processes, 128 among more, and 191 after it."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    log_every_steps: int = 10
    """Steps between two lines of metrics."""
    evaluate_every_steps: int = 0
    """Steps between two evaluations; 0 evaluates at the end only."""
    patience: int = 0
    """Evaluations in a row without a better value of checkpoint.best_by after which the run ends; 0 makes all steps."""
    least_improvement: float = 0.0
    """What a value has to be better by, to count for the patience, in its own unit (0.01 of an accuracy is 1 %)."""
    collective_timeout_seconds: float = 600.0
    """Timeout of an exchange: how long a process waits for the others."""
    time_limit_minutes: float = 0.0
    """Minutes after which this start saves and ends as preempted; 0 for none."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        yield from at_least(self, 1, "steps", "global_batch", "log_every_steps")
        yield from at_least(
            self,
            0,
            "micro_batch",
            "activation_memory_gib",
            "evaluate_every_steps",
            "time_limit_minutes",
            "gradient_bucket_mib",
            "patience",
            "least_improvement",
        )
        if self.patience and not self.evaluate_every_steps:
            yield "patience", "counts evaluations, and train.evaluate_every_steps is 0; set that too"
        if self.least_improvement and not self.patience:
            yield "least_improvement", "is for train.patience, which is 0; set that too, or leave this out"
        yield from within(self, 0.0, 1.0, "label_smoothing")
        if self.zero_stage not in (0, 1, 2, 3):
            yield "zero_stage", f"must be 0, 1, 2 or 3, got {self.zero_stage}"
        if self.precision == "fp16" and self.zero_stage == 0:
            yield "precision", "fp16 needs zero_stage >= 1: DeepSpeed does not scale the loss at stage 0; or take bf16"
        if self.gradient_exchange == "during_backward" and self.zero_stage not in (1, 2):
            yield "gradient_exchange", "during_backward is a choice at zero_stage 1 and 2 only; take auto"
        if self.gradient_dtype == "bf16" and (self.zero_stage == 3 or self.precision == "fp16"):
            yield "gradient_dtype", "bf16 is for zero_stage 0, 1 and 2, and not for precision=fp16; take fp32"
        if not 0 < self.collective_timeout_seconds <= _MOST_TIMEOUT_SECONDS:
            yield (
                "collective_timeout_seconds",
                f"must be above 0 and at most {_MOST_TIMEOUT_SECONDS}, got {self.collective_timeout_seconds}",
            )

    def logs(self, step: int) -> bool:
        """Return whether there is a line of metrics after so many steps."""
        return step % self.log_every_steps == 0 or step == self.steps

    def micro_batches_per_rank(self, world_size: int) -> int:
        """Return into how many micro-batches a rank cuts its share; ValueError where the numbers do not divide."""
        if self.global_batch % world_size:
            raise ValueError(
                f"train.global_batch = {self.global_batch} does not divide over {world_size} processes; "
                f"take a multiple of {world_size}, or other processes (--procs here; on Slurm --nodes, and "
                "processes_per_node of the profile)"
            )
        share = self.global_batch // world_size
        # Larger than the share it is the share: one file serves any number of processes.
        micro_batch = min(self.micro_batch, share) or share
        if share % micro_batch:
            raise ValueError(
                f"train.micro_batch = {self.micro_batch} does not divide the {share} samples of one of {world_size} "
                f"processes; take a divisor of {share}, or 0"
            )
        return share // micro_batch


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    save_every_steps: int = 1_000
    """Optimizer steps between two checkpoints; also the most work that a crash can lose. 0 saves by time only."""
    save_every_minutes: float = 15.0
    """Minutes between two checkpoints, whichever comes first; 0 saves by steps only."""
    keep_last: int = 3
    """Newest checkpoints that are kept; two or more, so that a damaged one has one before it."""
    keep_every_steps: int = 0
    """Checkpoints at multiples of this are kept for ever; 0 for none."""
    keep_best: bool = False
    """Save after every evaluation, and also keep the checkpoint with the best value of `best_by`."""
    best_by: str = ""
    """Metric that decides which checkpoint is the best, such as age/r2; empty for the first of an evaluation."""
    asynchronous: bool = True
    """Write in the background: a step waits only for the copy to host memory."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        yield from at_least(self, 0, "save_every_steps", "save_every_minutes", "keep_every_steps")
        yield from at_least(self, 1, "keep_last")


@dataclass(frozen=True)
class HealthConfig:
    """Responses to bad steps and hanging processes."""

    hang_seconds: float = 60.0
    """A process without a step for this long, plus twice the slowest recent one, ends the job; 0 waits for ever."""
    compile_seconds: float = 1_800.0
    """hang_seconds for a process that compiles."""
    max_skipped_in_a_row: int = 5
    """Non-finite steps in a row after which the run goes back to its last checkpoint and past those batches."""
    max_rollbacks: int = 3
    """Times that a run goes back before it fails."""
    spike_score: float = 0.0
    """Robust z-score of the loss at which the run goes back in the same way; 0 never does."""
    spike_window_steps: int = 100
    """Recent losses that the score is computed from."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        yield from at_least(self, 0, "hang_seconds", "compile_seconds", "max_rollbacks", "spike_score")
        yield from at_least(self, 1, "max_skipped_in_a_row")
        # A shorter window judges nothing, see trainer/health/spikes.py.
        yield from at_least(self, 10, "spike_window_steps")


@dataclass(frozen=True)
class ProfileConfig:
    """A window of steps that torch.profiler records."""

    first_step: int = 0
    """First step of the trace; 0 records nothing."""
    num_steps: int = 3
    """Steps of the trace."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every value that contradicts itself."""
        yield from at_least(self, 0, "first_step")
        yield from at_least(self, 1, "num_steps")


def joint_problems(
    optimizer: OptimizerConfig, train: TrainConfig, ema: EmaConfig | None = None, *, compiles: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for what contradicts itself only when several parts are seen.

    `compiles` says whether the network's layers are compiled.
    """
    if ema:
        yield from ema.joint_problems(train.steps, train.evaluate_every_steps)
    yield from stage_problems(optimizer.name, train.zero_stage)
    # A rule that cannot be read is reported by OptimizerConfig; here it would raise.
    for rule in () if list(step_problems(optimizer.freeze)) else rules(optimizer.freeze):
        # Of these two it is known what a step without a gradient leaves behind: see trainer/engine/unfreezing.py.
        if rule.number and optimizer.name not in (ADAMW, LAMB):
            yield "optimizer.freeze", f"{rule.pattern} is trained later, for which take adamw or lamb"
        if rule.number is not None and rule.number >= train.steps:
            last = f"train.steps={train.steps}; write {rule.pattern} to freeze these parameters for the whole run"
            yield (
                "optimizer.freeze",
                f"{rule.pattern} would train from step {rule.number:g} on, which is not before {last}",
            )
    if compiles and train.zero_stage == 3:
        within = "stage 3 gathers weights within the layers; lower the stage, or set false"
        yield "model.compile", f"compiles with train.zero_stage 0, 1 and 2 only: {within}"
