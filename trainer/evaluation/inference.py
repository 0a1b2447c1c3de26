"""The answers of a network in evaluation mode to batches of samples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.modalities.flow import FlowInput
from model.network import AnyNetwork
from model.outputs.modules.flow_tiles import tiled_flow
from trainer.tasks.objective import Objective

CHUNK = 16_384
"""Queries that are decoded at once: a clip of 16 frames of 224 x 224 asks 800 000."""


def shown_answers(
    network: nn.Module, goal: Objective, batch: Batch, lengths: dict[str, Tensor], objective: Objective
) -> dict[str, Tensor]:
    """Return what a goal asks of a batch with these lengths, each at all places that the whole objective asks for."""
    chunk = {"chunk": CHUNK} if any(task.asks_many for task in objective.tasks.values()) else {}
    return _answered(network, goal, batch, lengths, **objective.asks(batch, every=True), **chunk)


def averaged(answers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of the answers to the clips of the same samples, of classes that of their logits."""
    if len(answers) == 1:
        return answers[0]
    # In fp32: half precision would round once more what it has rounded.
    return {name: torch.stack([each[name].float() for each in answers]).mean(dim=0) for name in answers[0]}


def answered(network: nn.Module, objective: Objective, clips: Sequence[Batch]) -> dict[str, Tensor]:
    """Return every answer to the clips of a batch of samples as `evaluate` asks for it, all inputs shown."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        found = averaged([shown_answers(network, objective, clip, clip.host_lengths, objective) for clip in clips])
    network.train(was_training)
    return found


def predictions(network: nn.Module, batch: Batch, name: str) -> Tensor:
    """Return the most likely class of each sample of a batch, as an output answers."""
    answered: Tensor = _answers(network, batch)[name]
    return answered.argmax(dim=-1)


def reconstructions(network: nn.Module, objective: Objective, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what was to be answered and what was, both (B, *shape, channels), of answers that can be seen so."""
    compared = {name: task for name, task in objective.tasks.items() if task.is_compared}
    if not compared:
        return {}
    answers = _answers(network, batch, **objective.asks(batch, every=True), chunk=CHUNK)
    return {name: task.compared(answers[name], batch) for name, task in compared.items()}


def _answered(
    network: nn.Module,
    objective: Objective,
    batch: Batch,
    lengths: dict[str, Tensor],
    **asks: Any,  # noqa: ANN401  # the network's keywords
) -> dict[str, Tensor]:
    """Return the answers to a batch; frames that are larger than the network's are asked tile by tile."""
    # DeepSpeed holds the network as its module.
    own = getattr(network, "module", network)
    config = own.config if isinstance(own, AnyNetwork) else None
    named, flow = next(iter(config.ordered_inputs.items())) if config is not None else ("", None)
    if config is None or not isinstance(flow, FlowInput) or batch.arrays[named].shape[2:4] == (flow.height, flow.width):
        return objective.answers(network, batch, lengths, **asks)
    (name,) = config.outputs

    def of_tile(frames: Tensor) -> Tensor:
        answer: Tensor = network({named: frames}, **asks)[name]
        return answer

    tile = (flow.height, flow.width)
    # 20 pixels as the paper has them, or half a tile where that is less.
    return {name: tiled_flow(of_tile, batch.arrays[named], tile, min_overlap=min(20, *(side // 2 for side in tile)))}


def _answers(network: nn.Module, batch: Batch, **asks: object) -> dict[str, Tensor]:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        answered: dict[str, Tensor] = network(batch.arrays, batch.host_lengths, **asks)
    network.train(was_training)
    return answered
