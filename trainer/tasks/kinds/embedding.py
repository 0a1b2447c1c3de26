"""Contrastive pairs: two inputs of a sample are to be nearer to each other than to those of all other samples.

InfoNCE over the whole global batch (arXiv 2103.00020), whatever the number of ranks and micro-batches:

    1. all micro-batches of all ranks are answered without gradients, and the answers are gathered;
    2. each micro-batch is answered again, with gradients, and takes its rows' place among those of the others.

The gradient of the loss over all samples with respect to the rows of a micro-batch is exact, and these add up to that
of the whole. What a micro-batch returns has the value of its own samples' part and the gradient of the whole.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.outputs.embedding import EmbeddingOutput
from trainer.distributed.world import World
from trainer.tasks.answer import Row, Telling
from trainer.tasks.metric import Measurement, Metric, Result, ratio
from trainer.tasks.task import Others, Task

_RECALLS = (1, 5)
_ROWS = 1_024
"""Rows of a table of similarities that are held at once."""


@dataclass(frozen=True)
class EmbeddingTask(Task[EmbeddingOutput]):
    """Cross-entropy of finding the other input of a sample among those of all samples, both ways."""

    kind: ClassVar[str] = "embedding"
    by_input: ClassVar[bool] = False

    def count(self, batch: Batch) -> Tensor:
        """Return the sum of the weights of the samples that have both inputs."""
        return self.weights(batch).sum()

    def weights(self, batch: Batch) -> Tensor:
        """Return the weight of each sample, 0 where it lacks one of the two; such a sample is no candidate either."""
        first, second = (batch.lengths[name] > 0 for name in self.output.pair)
        return batch.weights * (first & second)

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies among the samples of this batch alone."""
        return _losses(answer, self.weights(batch)).sum()

    def sum_among(self, answer: Tensor, batch: Batch, others: Others) -> Tensor:
        """Return this batch's part of the sum over the global batch, with the gradient of all of it."""
        rows = slice(others.first, others.first + len(batch.keys))
        whole = torch.cat([others.answers[:, : rows.start], answer.float(), others.answers[:, rows.stop :]], dim=1)
        losses = _losses(whole, others.weights)
        # The value of these samples alone, so that micro-batches add up to the whole. The gradient is that of the whole
        # loss with respect to these rows.
        total = losses.sum()
        return losses[rows].sum().detach() + (total - total.detach())

    def metrics(self) -> tuple[Metric, ...]:
        """Return how often the other input is the nearest, and among the nearest five."""
        return tuple(Metric(f"recall_at_{most}", "%", highest=1.0) for most in _RECALLS)

    def rows(self, answer: Tensor, batch: Batch, telling: Telling) -> list[Row]:  # noqa: ARG002  # numbers are numbers
        """Return the vector of each of the two inputs, as far as the sample has it."""
        vectors, lengths = answer.float().cpu().tolist(), [batch.lengths[name].tolist() for name in self.output.pair]
        return [
            {
                f"{self.name}_{name}": vectors[view][row] if lengths[view][row] else None
                for view, name in enumerate(self.output.pair)
            }
            for row in range(len(batch.keys))
        ]

    def measurement(self) -> Measurement:
        """Return an empty list of answers: each is looked for among all of them."""
        return Retrieval(self)


def _losses(answers_2BD: Tensor, weights_B: Tensor) -> Tensor:
    """Return the weighted loss of each sample, the mean of both ways; a sample of weight 0 is nobody's candidate."""
    first, second = answers_2BD.float()
    logits = first @ second.T
    # Its own pair stays, so that no sum of exponentials is empty.
    is_out = (weights_B == 0) & ~torch.eye(len(weights_B), dtype=torch.bool, device=weights_B.device)
    there = logits.masked_fill(is_out, -torch.inf).logsumexp(dim=1)
    back = logits.T.masked_fill(is_out, -torch.inf).logsumexp(dim=1)
    losses: Tensor = (0.5 * (there + back) - logits.diagonal()) * weights_B
    return losses


class Retrieval(Measurement):
    """The answers of all samples of all ranks."""

    def __init__(self, task: EmbeddingTask) -> None:
        self._task = task
        self._answers: list[Tensor] = []

    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        """See Measurement."""
        judged = judged & (self._task.weights(batch) > 0)
        self._answers.append(answer[:, judged].float().cpu())

    def result(self, world: World) -> Result:
        """See Measurement."""
        first, second = torch.cat(world.gather(torch.cat(self._answers, dim=1)), dim=1)
        ranks = torch.cat([_ranks(first, second), _ranks(second, first)])
        values = {f"recall_at_{most}": ratio(int((ranks < most).sum()), len(ranks)) for most in _RECALLS}
        return Result(values, len(first))


def _ranks(queries_BD: Tensor, candidates_BD: Tensor) -> Tensor:
    """Return how many candidates are at least as near to each query as its own is."""
    found = []
    for number, rows in enumerate(torch.split(queries_BD, _ROWS)):
        similarities = rows @ candidates_BD.T
        own = similarities.diagonal(number * _ROWS)
        # Of equal ones none is found: a network that answers all alike finds nothing.
        found.append((similarities >= own[:, None]).sum(dim=1) - 1)
    return torch.cat(found)
