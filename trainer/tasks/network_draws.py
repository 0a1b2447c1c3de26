"""What a training step draws for its network: a function of the seed, the global batch, and a sample's place in it.

Neither the number of ranks nor that of micro-batches changes what a sample draws, and a resumed run draws it again.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.order import random_numbers
from model.config.perceiver import PerceiverConfig


@dataclass(frozen=True)
class NetworkDraws:
    """The draws of a network; by default it draws nothing."""

    seed: int = 0
    """The seed of the run."""
    drops: bool = False
    """Whether the network has dropout or stochastic depth."""
    latent_sizes: tuple[int, ...] = ()
    """Numbers of latents of which each step draws one; empty where the network has one size."""

    @staticmethod
    def of(config: PerceiverConfig, seed: int) -> "NetworkDraws":
        """Return the draws of a network."""
        return NetworkDraws(seed, config.draws, config.nested_latents)

    def largest(self) -> "NetworkDraws":
        """Return the draws in which all latents take part: those of a trial of memory."""
        return replace(self, latent_sizes=())

    def asks(self, batch: Batch) -> dict[str, Any]:
        """Return the network's keywords for a step of training: none where it draws nothing."""
        drawn = {"draws": self._numbers(batch)} if self.drops else {}
        return drawn | ({"num_latents": self.num_latents(batch.index)} if self.latent_sizes else {})

    def num_latents(self, index: int) -> int:
        """Return how many latents take part in the step of a global batch: see PerceiverConfig.latent_shares."""
        # One number for all samples: the micro-batches of a step are added up, whoever computes them.
        (word,) = random_numbers.words(random_numbers.key("latents", self.seed, index), 0, 1)
        *smaller, largest = self.latent_sizes
        half, rest = int(word) & 1, int(word) >> 1
        return largest if half else smaller[rest % len(smaller)]

    def _numbers(self, batch: Batch) -> Tensor:
        # By place and not by key: a sample that is in a batch twice is dropped differently each time.
        purpose = random_numbers.key("dropout", self.seed, batch.index)
        words = random_numbers.words(purpose, batch.first, batch.first + len(batch.keys))
        halves = np.stack([words >> np.uint64(32), words & np.uint64(0xFFFF_FFFF)], axis=1).astype(np.int64)
        return batch.beside(torch.from_numpy(halves))
