"""How good a network is on samples that it was not trained on; every sample is counted once at any world size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.outputs.flow_tiles import tiled_flow
from model.perceiver import Perceiver
from trainer.distributed.world import World
from trainer.tasks.losses import Motion, Reconstruction, Task
from trainer.tasks.metrics import ALL, END_POINT_ERROR, Score, scores_of
from trainer.tasks.objective import Objective

CHUNK = 16_384
"""Queries that are decoded at once: a clip of 16 frames of 224 x 224 asks 800 000."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    samples: int
    """That were judged, with all modalities shown."""
    scores: Mapping[str, Mapping[str, float]]
    """By what is measured ("accuracy", "psnr", ...; higher is better, but for "end_point_error"), then "all", the
    modality that was shown alone, or the one that was drawn again."""
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of some of the samples, uint8 (H, W, 3)."""

    @property
    def best_by(self) -> float:
        """What the best checkpoint is known by, higher being better: the first score, or the first error's negative."""
        measure, values = next(iter(self.scores.items()))
        first = next(iter(values.values()))
        return -first if measure == END_POINT_ERROR else first

    def flat(self) -> dict[str, float]:
        """Return {"accuracy/all": value, ...}."""
        return {f"{measure}/{name}": value for measure, by in self.scores.items() for name, value in by.items()}

    def as_json(self) -> dict[str, object]:
        """Return {"samples": n, "accuracy": {"all": a, "image": b, ...}, ...}."""
        return {"samples": self.samples, **{measure: dict(by) for measure, by in self.scores.items()}}


def evaluate(
    network: nn.Module, objective: Objective, batches: Iterable[Batch], world: World, modalities: tuple[str, ...]
) -> Evaluation:
    """Return how well the network answers each task of the objective. Collective.

    `batches` is this rank's part, as many batches on every rank; slots without a key only fill a batch. A modality
    alone is measured by setting the lengths of the others to zero, over the samples that have it.
    """
    was_training = network.training
    network.eval()
    scores = scores_of(objective)
    alone = modalities if len(modalities) > 1 and any(score.by_modality for score in scores) else ()
    chunk = _chunk(objective.tasks.values())
    with torch.no_grad():
        for batch in batches:
            here = batch.to(world.device)
            real = torch.tensor([key != "" for key in batch.keys], device=world.device)
            for shown in (ALL, *alone):
                lengths = here.host_lengths if shown == ALL else _alone(here.host_lengths, shown)
                judged = real if shown == ALL else real & (here.lengths[shown] > 0)
                answers = _answered(network, here, lengths, **objective.asks(here, every=True), **chunk)
                for score in scores:
                    if shown == ALL or score.by_modality:
                        score.add(shown, answers, here, judged)
    network.train(was_training)
    return _evaluation(scores, world)


def told(measure: str, value: float | str) -> str:
    """Return a score as it is printed: decibels of a ratio, pixels of an error, per cent of all else."""
    if measure.startswith(END_POINT_ERROR):
        return f"{value:.2f} px"
    return f"{value:.2f} dB" if measure.startswith("psnr") else f"{value:.2%}"


def predictions(network: nn.Module, batch: Batch) -> Tensor:
    """Return the most likely class of each sample of a batch."""
    answered: Tensor = _answers(network, batch)["label"]
    return answered.argmax(dim=-1)


def reconstructions(network: nn.Module, objective: Objective, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what was to be drawn again and what the network drew, both (B, *shape, channels), by modality."""
    drawn = _answers(network, batch, **objective.asks(batch, every=True), chunk=CHUNK)
    tasks = {name: task for name, task in objective.tasks.items() if isinstance(task, Reconstruction)}
    targets = {name: task.target(batch) for name, task in tasks.items()}
    return {name: (target, drawn[name].float().view_as(target)) for name, target in targets.items()}


def _chunk(tasks: Iterable[Task]) -> dict[str, int]:
    """How many queries are decoded at once; only a network that answers with grids knows of it."""
    return {"chunk": CHUNK} if any(isinstance(task, Reconstruction | Motion) for task in tasks) else {}


def _answered(network: nn.Module, batch: Batch, lengths: dict[str, Tensor], **asks: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The answers to a batch; frames that are larger than the network's are asked tile by tile."""
    # DeepSpeed holds the network as its module.
    own = getattr(network, "module", network)
    flow = own.config.inputs.flow if isinstance(own, Perceiver) else None
    if flow is None or batch.arrays["flow"].shape[2:4] == (flow.height, flow.width):
        answered: dict[str, Tensor] = network(batch.arrays, lengths, **asks)
        return answered

    def of_tile(frames: Tensor) -> Tensor:
        answer: Tensor = network({"flow": frames}, **asks)["flow"]
        return answer

    tile = (flow.height, flow.width)
    # 20 pixels as the paper has them, or half a tile where that is less.
    return {"flow": tiled_flow(of_tile, batch.arrays["flow"], tile, min_overlap=min(20, *(side // 2 for side in tile)))}


def _answers(network: nn.Module, batch: Batch, **asks: object) -> dict[str, Tensor]:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        answered: dict[str, Tensor] = network(batch.arrays, batch.host_lengths, **asks)
    network.train(was_training)
    return answered


def _evaluation(scores: list[Score], world: World) -> Evaluation:
    found: dict[str, dict[str, float]] = {}
    samples = 0
    for score in scores:
        values, counted = score.result(world)
        found.setdefault(score.measure, {}).update(values)
        samples = max(samples, counted)
    return Evaluation(samples, found)


def _alone(lengths: dict[str, Tensor], modality: str) -> dict[str, Tensor]:
    return {name: length if name == modality else torch.zeros_like(length) for name, length in lengths.items()}
