"""What a training step draws for its network: a function of the seed, the global batch, and a sample's place in it.

Neither the number of ranks nor that of micro-batches changes what a sample draws, and a resumed run draws it again.
"""

from dataclasses import dataclass

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

    @staticmethod
    def of(config: PerceiverConfig, seed: int) -> "NetworkDraws":
        """Return the draws of a network."""
        return NetworkDraws(seed, config.draws)

    def asks(self, batch: Batch) -> dict[str, Tensor]:
        """Return the network's keywords for a step of training: none where it draws nothing."""
        if not self.drops:
            return {}
        # By place and not by key: a sample that is in a batch twice is dropped differently each time.
        purpose = random_numbers.key("dropout", self.seed, batch.index)
        words = random_numbers.words(purpose, batch.first, batch.first + len(batch.keys))
        halves = np.stack([words >> np.uint64(32), words & np.uint64(0xFFFF_FFFF)], axis=1).astype(np.int64)
        draws = torch.from_numpy(halves)
        # From memory that is not page-locked the host would wait for the copy.
        draws = draws.pin_memory() if batch.weights.is_cuda else draws
        return {"draws": draws.to(batch.weights.device, non_blocking=True)}
