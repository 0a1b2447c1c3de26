"""What may change at a resume: every key of the configuration is classified here, once.

A run's result is decided by its configuration. What only says how the run is watched, kept, fed, or fitted into memory
may change between two of its starts; for all else there is `perceiver fork`.
"""

from collections.abc import Sequence

MAY_CHANGE = (
    # How it is watched.
    "profile",
    "train.collective_timeout_seconds",
    "train.evaluate_every_steps",
    "train.log_every_steps",
    "train.time_limit_minutes",
    "health.compile_seconds",
    "health.hang_seconds",
    # How much goes wrong before it ends: what is done about each thing that does stays the same.
    "data.max_bad_rate",
    "health.max_rollbacks",
    # How it is kept.
    "checkpoint",
    # How it is fed: the order of the samples is arithmetic, whoever decodes them.
    "data.num_processes",
    "data.num_threads",
    "data.prefetch_batches",
    "data.prefetch_mib",
    "data.remote",
    # How it is fitted into memory: like the number of processes, no part of what is computed.
    "model.activation_checkpointing",
    "model.recompute_every_blocks",
    "train.activation_memory_gib",
    "train.micro_batch",
)

DECIDES = (
    # Scores of another metric cannot be compared with those that checkpoints have.
    "checkpoint.best_by",
    "data.clips",
    "data.datasets",
    "data.eval_split",
    "data.inputs",
    "data.labels",
    "data.lanes",
    "data.mixup",
    "data.modality_dropout",
    "data.multi_label",
    "data.require",
    "data.shards",
    "data.values",
    "data.window",
    "ema.decay",
    # Scores of other weights cannot be compared with those that checkpoints have.
    "ema.evaluate",
    "ema.every_steps",
    "initial_weights",
    "model",
    "optimizer",
    "plugins",
    "seed",
    "train.deterministic",
    "train.global_batch",
    "train.gradient_bucket_mib",
    "train.gradient_dtype",
    "train.gradient_exchange",
    "train.label_smoothing",
    "train.least_improvement",
    "train.patience",
    "train.precision",
    "train.steps",
    "train.tf32",
    "train.zero_stage",
    "version",
    # Which batches are skipped.
    "health.max_skipped_in_a_row",
    "health.spike_score",
    "health.spike_window_steps",
)

DECIDE_THE_END = ("train.evaluate_every_steps",)
"""What may change, but for a run that its evaluations end."""

CARRIES_OVER = frozenset(
    {
        # How the same numbers are computed.
        "activation_checkpointing",
        "recompute_every_blocks",
        "compile",
        "cross_attend_form",
        "residual_dtype",
        # What the training weighs.
        "class_weights",
        "fraction",
        "huber_delta",
        "loss",
        "loss_weight",
        "target",
        "train_points",
        "train_queries",
        "value_range",
        # How much is read and answered, where the shapes of the weights allow it.
        "height",
        "max_tokens",
        "num_frames",
        "num_points",
        "num_samples",
        # 0 stands for the latents' width, and any other width shows in the shape of the query.
        "query_width",
        "shape",
        "width",
        # By its value: empty stands for the size of the grid (model/transfer.py, other_frequencies).
        "max_resolution",
    }
)
"""Keys of a network, by their last part, under whose change its weights keep their meaning.

Others, such as the number of heads, may leave every shape as it is and make noise of what was learned.
"""


NAMES_IDS = frozenset({"tokenizer"})
"""Keys of the data's inputs, by their last part, that say what a network's ids stand for."""


def may_change(key: str) -> bool:
    """Return whether a resume may change a key, such as data.num_threads: the longest name above says so."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in MAY_CHANGE or name in DECIDES:
            return name in MAY_CHANGE
    return False


def deciding(changes: Sequence[str], *, stops_early: bool = False) -> list[str]:
    """Return those lines of `difference` that decide what the run computes, where evaluations may end it or not."""
    keys = {change: change.partition(":")[0] for change in changes}
    ends = DECIDE_THE_END if stops_early else ()
    return [change for change, key in keys.items() if key in ends or not may_change(key)]


def other_meaning(changes: Sequence[str]) -> list[str]:
    """Return those keys of `difference` under whose change the weights of a network have another meaning."""
    keys = [change.partition(":")[0] for change in changes]
    of_network = [key for key in keys if key.startswith("model.") and key.rpartition(".")[2] not in CARRIES_OVER]
    return of_network + [key for key in keys if key.startswith("data.") and key.rpartition(".")[2] in NAMES_IDS]
