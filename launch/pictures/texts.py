"""Texts of which words were hidden, as they were filled in."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from data_shards.files.display import printable
from data_shards.loading.batch import Batch
from data_shards.modalities.kinds.text import TextConfig


def filled_in(section: TextConfig, name: str, batch: Batch, guesses: Tensor) -> Iterator[str]:
    """Yield four lines a sample that has the text: its key, and the text as it was shown, as it is, and as answered.

    `guesses` (B, L) are the ids that the network answers at every place; those that were not hidden are as they were.
    """
    for row, key in enumerate(batch.keys):
        length = int(batch.lengths[name][row])
        if not key or not length:
            continue
        shown, target, guess = (
            part[row, :length].cpu().numpy() for part in (batch.arrays[name], batch.targets[name], guesses)
        )
        # A target of 0 says that nothing was hidden there; -1 stands for a hidden id of 0.
        true = np.where(target == 0, shown, np.where(target == -1, 0, target))
        yield printable(key)
        for title, ids in (("shown", shown), ("true", true), ("answer", np.where(target == 0, shown, guess))):
            yield f"  {title + ':':<8}{printable(section.words(ids))}"
