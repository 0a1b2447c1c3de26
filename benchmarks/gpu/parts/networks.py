"""A training step of the papers' networks, forward and backward in bf16, by form, compiled, and beside peers.

This one is deterministic, as the trainer has it; peers run as they come.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.gpu import subjects
from benchmarks.gpu.clock import PEAK_FLOPS, synchronise, timed
from benchmarks.gpu.operations import operations
from benchmarks.gpu.setting import Found, Setting
from benchmarks.gpu.subjects import Images, Step
from model.attention.read_forms import read_form
from model.budget.activation_memory import activation_bytes
from model.budget.flops import network_cost, total
from model.config.perceiver import PerceiverConfig
from trainer.config import TrainConfig
from trainer.engine import arithmetic


@dataclass(frozen=True)
class Case:
    """A network of configs/paper, as somebody has it."""

    name: str
    """p1, the first paper's ImageNet network, or i1, Perceiver IO's."""
    by: str = "this"
    """Whose: this one, transformers, or PyTorch's attention in layers as one writes them."""
    form: str = "auto"
    """The form in which this network reads the tokens."""
    is_compiled: bool = False
    """True measures this network compiled."""
    policy: str = "none"
    """The policy for the parts that this network computes again in the backward pass."""
    batches: int = 3
    """How many of the setting's batches are measured, from the largest on."""


# What tells most comes first: the rest may have no time.
CASES = (
    Case("p1"),
    Case("i1"),
    Case("i1", "transformers"),
    Case("p1", "PyTorch's attention"),
    Case("i1", "PyTorch's attention"),
    Case("p1", is_compiled=True, batches=1),
    Case("p1", form="absorbed", batches=1),
    Case("p1", form="plain", batches=1),
    Case("i1", form="plain", batches=1),
    Case("i1", is_compiled=True, batches=1),
    Case("p1", policy="selective", batches=1),
    Case("p1", policy="offload", batches=1),
)


def measure(setting: Setting) -> Found:
    """Return a row for each network and batch."""
    rows: list[Found] = []
    for case in CASES:
        # A CPU takes longer to compile than to try all the rest.
        if not (case.is_compiled and setting.is_tiny):
            for row in _rows(setting, case):
                rows.append(row)
                setting.keep("networks", {"rows": rows})
                print(row, flush=True)
        if setting.on_gpu:
            torch.cuda.empty_cache()
    return {"rows": rows}


def _rows(setting: Setting, case: Case) -> Iterator[Found]:
    arithmetic.apply(TrainConfig(deterministic=case.by == "this"), setting.device)
    config = setting.config(case.name, cross_attend_form=case.form, activation_checkpointing=case.policy)
    form = read_form(config, setting.device) if case.by == "this" else ""
    base = {"network": case.name, "by": case.by, "form": form, "compiled": case.is_compiled, "policy": case.policy}
    try:
        of = _subject(setting, case, config)
    except (ImportError, RuntimeError) as error:
        yield {**base, "error": f"{type(error).__name__}: {error}"[:300]}
        return
    for batch in setting.batches()[: case.batches]:
        try:
            step = of(Images.draw(config, batch, setting.device))
            row = _row(setting, config, step, batch, is_counted=not case.is_compiled)
            planned = {"planned_mib": planned_mib(config, batch, setting.device.type)} if form else {}
            yield {**base, "batch": batch, **row, **planned}
        except RuntimeError as error:
            yield {**base, "batch": batch, "error": f"{type(error).__name__}: {error}"[:300]}


def _subject(setting: Setting, case: Case, config: PerceiverConfig) -> Callable[[Images], Step]:
    match case.by:
        case "transformers":
            return subjects.transformers(setting, config)
        case "this":
            return subjects.ours(setting, config, case.is_compiled)
    return subjects.plain_attention(setting, config)


def _row(setting: Setting, config: PerceiverConfig, step: Step, batch: int, *, is_counted: bool) -> Found:
    paper_flops = 3 * total(network_cost(config)).flops * batch
    began = time.perf_counter()
    step()
    synchronise(setting.device)
    row: Found = {"first_s": time.perf_counter() - began}
    if is_counted:
        # Of matrix products and attention, as they are called: what a kernel avoids is not among them.
        row["done_tflop"] = sum(operations(step).values()) / 1e12
    timing = timed(step, setting.device)
    seconds = timing.milliseconds / 1e3
    row |= {
        "ms": timing.milliseconds,
        "samples_per_s": batch / seconds,
        "paper_share_of_peak": paper_flops / seconds / PEAK_FLOPS,
        "peak_mib": timing.peak_mib,
        "activations_mib": timing.added_mib,
    }
    if is_counted:
        row["done_share_of_peak"] = 1e12 * row["done_tflop"] / seconds / PEAK_FLOPS
    return row


def planned_mib(config: PerceiverConfig, batch: int, device: str) -> float:
    """Return what `perceiver plan` says that the activations of a batch take in bf16."""
    return batch * activation_bytes(config, bytes_per_element=2, device=device) / 2**20
