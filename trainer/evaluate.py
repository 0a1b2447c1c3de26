"""Accuracy with all modalities and with each one alone; every sample is counted once at any world size."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from data_shards.batch import NO_LABEL, Batch
from trainer.world import World

ALL = "all"


def evaluate(
    network: nn.Module, batches: Iterable[Batch], world: World, modalities: tuple[str, ...]
) -> dict[str, int | dict[str, float]]:
    """Return {"samples": n, "accuracy": {"all": a, "image": b, ...}} over the labelled samples. Collective.

    `batches` is this rank's part, as many batches on every rank; slots without a key only fill a batch. A modality
    alone is measured by setting the lengths of the others to zero, over the samples that have it.
    """
    was_training = network.training
    network.eval()
    shown = (ALL, *modalities) if len(modalities) > 1 else (ALL,)
    right = torch.zeros(len(shown), dtype=torch.float64, device=world.device)
    counted = torch.zeros_like(right)
    with torch.no_grad():
        for batch in batches:
            here = batch.to(world.device)
            real = torch.tensor([key != "" for key in batch.keys], device=world.device) & (here.labels != NO_LABEL)
            for index, modality in enumerate(shown):
                lengths = here.lengths if modality == ALL else _alone(here.lengths, modality)
                judged = real if modality == ALL else real & (lengths[modality] > 0)
                logits = network(here.arrays, lengths)["label"]
                right[index] += ((logits.argmax(dim=-1) == here.labels) & judged).sum()
                counted[index] += judged.sum()
    network.train(was_training)
    right, counted = world.sum(torch.stack([right, counted])).cpu()
    accuracy = {name: float(r / n) if n else 0.0 for name, r, n in zip(shown, right, counted, strict=True)}
    return {"samples": int(counted[0]), "accuracy": accuracy}


def predictions(network: nn.Module, batch: Batch) -> Tensor:
    """Return the most likely class of each sample of a batch."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        classes: Tensor = network(batch.arrays, batch.lengths)["label"].argmax(dim=-1)
    network.train(was_training)
    return classes


def _alone(lengths: dict[str, Tensor], modality: str) -> dict[str, Tensor]:
    return {name: length if name == modality else torch.zeros_like(length) for name, length in lengths.items()}
