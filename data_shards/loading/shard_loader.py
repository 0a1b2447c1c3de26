"""ShardLoader: the batches of a shard folder for a training loop of one's own.

The same order, transforms and checks as in a run. What it needs to resume is its step and what decides the order;
`state_dict` has both, a few hundred bytes, the same on every rank and good for any number of ranks.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch.distributed as dist

from data_shards.config import DataConfig
from data_shards.loading.batch import Batch
from data_shards.loading.loader.loader import Loader
from data_shards.loading.shard_folders import Places
from data_shards.loading.streams import TRAIN, data_state, eval_loader, train_loader
from data_shards.order.state import DataState

T = TypeVar("T")


class ShardLoader:
    """Batches of this rank: `for batch in loader` goes from where the loader is to the end of its epoch.

    The split "train" is shuffled anew every epoch, without end; any other is read once in its own order, the last batch
    padded with slots of weight 0. A loader serves one loop at a time. Close it, or use it as a context manager, to end
    its threads.
    """

    def __init__(
        self,
        data: DataConfig,
        *,
        global_batch: int,
        seed: int = 0,
        split: str = TRAIN,
        rank: int | None = None,
        world_size: int | None = None,
        pinned: bool = False,
        quarantine: Path | str | None = None,
    ) -> None:
        """Open the shards; ValueError says what does not fit.

        `global_batch` counts the samples of all ranks. `rank` and `world_size` are those of torch.distributed where
        they are not given, and 0 of 1 without it. Bad samples are replaced and listed in the file `quarantine`;
        without one, the first is an error. `pinned` batches are in page-locked memory, for a GPU.
        """
        rank, world_size = _ranks(rank, world_size)
        if global_batch < 1:
            raise ValueError(f"global_batch = {global_batch}: must be at least 1")
        # Only an evaluation of a run averages the answers to several clips; here the middle of each sample is read.
        data = replace(data, shards=os.fspath(data.shards), clips=data.clips if split == TRAIN else None)
        if problems := [f"data.{key}: {sentence}" for key, sentence in data.problems()]:
            raise ValueError("\n".join(problems))
        places = Places(data)
        common: dict[str, Any] = {
            "global_batch": global_batch,
            "rank": rank,
            "world_size": world_size,
            "pinned": pinned,
            "quarantine": Path(quarantine) if quarantine else None,
            "places": places,
        }
        self._trains = split == TRAIN
        self._loader, self._steps_per_epoch = _in_own_words(
            lambda: (
                _opened(train_loader(data, seed=seed, **common)) if self._trains else eval_loader(data, split, **common)
            )
        )
        # Of several datasets only training reads.
        read = data if self._trains else replace(data, datasets={})
        self._state = data_state(read, seed=seed, global_batch=global_batch, split=split, places=places)
        self._split = split
        self._step = 0

    @property
    def step(self) -> int:
        """Batches handed out since the first epoch began; also the number of the next one."""
        return self._step

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self._step // self._steps_per_epoch

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rest of this epoch; of one that is complete, all of the next."""
        if not self._trains and self._step == self._steps_per_epoch:
            self._step = 0
        end = (self.epoch + 1) * self._steps_per_epoch
        while self._step < end:
            batch = _in_own_words(lambda: self._loader(self._step))
            # Before the loop has it: a state that the loop saves with what it learned from a batch counts that batch.
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, fit for JSON; the batch that the loop holds counts as used."""
        return {"split": self._split, **asdict(replace(self._state, step=self._step))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a state was taken, at any number of ranks; ValueError where its samples were others."""
        fields = dict(state)
        # Of a state of another split the fingerprint differs, too, but that sentence would speak of changed shards.
        if (split := fields.pop("split", None)) != self._split:
            remedy = (
                "load it into a loader of that split" if split else "expected what a ShardLoader's state_dict returned"
            )
            raise ValueError(f"the state is of split {split!r}, this loader reads {self._split!r}; {remedy}")
        saved = DataState.from_json(json.dumps(fields))
        self._state.check(saved)
        # The fields have their types by now; a state that was edited can still say this.
        if saved.step < 0:
            raise ValueError(f"the state has step {saved.step}, expected 0 or more")
        self._step = saved.step

    def close(self) -> None:
        """End the threads or processes that decode."""
        self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opened(loader: Loader) -> tuple[Loader, int]:
    return loader, loader.order.steps_per_epoch


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size, from torch.distributed where they are not given."""
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank = {rank} and world_size = {world_size}: give both, or neither to ask torch.distributed")
    if rank is None or world_size is None:
        return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank = {rank}: must be from 0 to below world_size, which is {world_size}")
    return rank, world_size


def _in_own_words(work: Callable[[], T]) -> T:
    """Return what the work returns; its ValueError names our argument, not the key of a run's configuration."""
    try:
        return work()
    except ValueError as error:
        raise ValueError(str(error).replace("train.global_batch", "global_batch")) from error
