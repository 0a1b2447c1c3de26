"""Texts of which words were hidden, as they were filled in."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from torch import Tensor

from data_shards.files.display import printable
from data_shards.loading.batch import Batch
from data_shards.modalities.kinds.text import TextConfig


def filled_in(section: TextConfig, name: str, batch: Batch, guesses: Tensor) -> Iterator[str]:
    """Yield four lines a sample that has the text: its key, and the text as it was shown, as it is, and as answered.

    `guesses` (B, L) are the ids that the network answers at every place; those that were not hidden are as they were.
    What was hidden stands in brackets, in what was shown and in the answer.
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
        hidden = target != 0
        answer = np.where(hidden, guess, shown)
        words = {
            "shown": bracketed(section, shown, hidden),
            "true": section.words(true),
            "answer": bracketed(section, answer, hidden),
        }
        yield printable(key)
        yield from (f"  {title + ':':<8}{printable(of)}" for title, of in words.items())


def bracketed(section: TextConfig, ids: np.ndarray, marked: np.ndarray) -> str:
    """Return the text of ids with the pieces in brackets that are marked."""
    edges = [0, *(np.flatnonzero(np.diff(marked)) + 1).tolist(), len(ids)]
    pieces, before = [], ""
    for start, end in pairwise(edges):
        # Of a part alone a tokenizer may leave out the space before it.
        until = section.words(ids[:end])
        piece = until[len(before) :] if until.startswith(before) else section.words(ids[start:end])
        before = until
        inner = piece.strip() or piece
        left, _, right = piece.partition(inner) if inner else ("", "", "")
        pieces.append(f"{left}[{inner}]{right}" if start < end and marked[start] else piece)
    return "".join(pieces)
