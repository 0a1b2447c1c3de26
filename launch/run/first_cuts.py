"""FirstCuts: a training says once how many of its first samples were longer than an input reads."""

from collections.abc import Callable

from data_shards.config import DataConfig
from data_shards.files.quoting import counted
from data_shards.loading.batch import Batch
from data_shards.loading.cuts import Cuts
from trainer.feed import Batches

_STEPS = 10


class FirstCuts:
    """The batches of a loader; those of the first steps are counted, and the last one of these tells it."""

    def __init__(
        self, batches: Batches, config: DataConfig, num_steps: int, world_size: int, tell: Callable[[str], None]
    ) -> None:
        """`num_steps` is how many are left of the run."""
        self._batches, self._config, self._tell = batches, config, tell
        self._num_steps = min(num_steps, _STEPS)
        # Of its own rank alone: nothing is exchanged for a sentence.
        self._where = " on rank 0" if world_size > 1 else ""
        self._cuts: list[Cuts] = []

    def __call__(self, index: int) -> Batch:
        """Return global batch `index`, or this rank's part of it."""
        batch = self._batches(index)
        if len(self._cuts) < self._num_steps:
            self._cuts.append(Cuts.of([batch]))
            if len(self._cuts) == self._num_steps:
                for sentence in Cuts.total(self._cuts).sentences(self._config):
                    self._tell(f"training, {counted(self._num_steps, 'step')}{self._where}: {sentence}")
        return batch
