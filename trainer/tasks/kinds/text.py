"""Hidden bytes or tokens of a text: cross-entropy, and the fraction that is predicted correctly."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.modalities.kinds.text import TextConfig
from model.measures.losses import cross_entropy_sum, labelled
from model.outputs.text import TextOutput
from trainer.distributed.world import World
from trainer.tasks.answer import Row, Telling
from trainer.tasks.metric import Measurement, Metric, Result, Sums, ratio
from trainer.tasks.task import Task


@dataclass(frozen=True)
class TextTask(Task[TextOutput]):
    """Cross-entropy of the bytes that were hidden from the text, weighted by the samples' weights."""

    kind: ClassVar[str] = "text"
    # Hidden words are guessed from the words around them: another input alone has none.
    by_input: ClassVar[bool] = False

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the hidden bytes."""
        return labelled(*self.hidden(batch)).sum()

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies."""
        return cross_entropy_sum(answer, *self.hidden(batch))

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true ids of the hidden bytes, -1 where nothing was hidden, and the weight of each place."""
        found = batch.targets[self.output.target].long()
        # 0 says that nothing is hidden, so that -1 stands for the id 0. Losses leave out what is below 0.
        ids = found.masked_fill(found == 0, -1).masked_fill(found == -1, 0)
        return ids, batch.weights[:, None].expand(ids.shape)

    def metrics(self) -> tuple[Metric, ...]:
        """Return the accuracy."""
        return (Metric("accuracy", "%", highest=1.0),)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:
        """Return the text with its hidden places filled in, as it was shown, and of shards as it is."""
        target = self.output.target
        section = telling.inputs[target]
        assert isinstance(section, TextConfig)
        shown, guesses = batch.arrays[target].cpu().numpy(), answer.argmax(dim=-1).cpu().numpy()
        truths = self.hidden(batch)[0].cpu().numpy()
        found: list[Row] = []
        for ids, guess, truth, length in zip(shown, guesses, truths, batch.lengths[target].tolist(), strict=True):
            seen = ids[:length]
            filled = np.where(section.hidden(seen), guess[:length], seen)
            row: Row = {self.name: section.words(filled), f"{self.name}_shown": section.words(seen)}
            if telling.with_truth:
                # What a text hides by its own marks nobody knows.
                row[f"{self.name}_true"] = section.words(np.where(truth[:length] < 0, seen, truth[:length]))
            found.append(row)
        return found

    def measurement(self) -> Measurement:
        """Return an empty count."""
        return FilledIn(self)


class FilledIn(Measurement):
    """Part of the hidden bytes that were filled in rightly."""

    def __init__(self, task: TextTask) -> None:
        self._task = task
        self._sums = Sums(3)

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        ids, _ = self._task.hidden(batch)
        asked = (ids >= 0) & judged[:, None]
        self._sums.add(((answer.argmax(dim=-1) == ids) & asked).sum(), asked.sum(), judged.sum())

    def result(self, world: World) -> Result:
        """See Measurement."""
        right, asked, samples = self._sums.joined(world)
        return Result({"accuracy": ratio(right, asked)}, int(samples))
