"""A process that builds batches, for transforms that hold the interpreter's lock. Threads do for all others.

A batch comes back as a few tensors in shared memory: torch hands on their descriptors, not their bytes.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch

from data_shards.loading.batch import Batch
from data_shards.loading.collate import Assembler
from data_shards.order.sample_order import Slots

_assemblers: list[Assembler] = []
"""The one of this process: it is opened once, when the process starts, and a task can bring no such thing along."""


def processes(assembler: Assembler, num_processes: int) -> ProcessPoolExecutor:
    """Return processes that run `make`. Spawned: a fork of a process with threads may never wake up."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=_start, initargs=(assembler,))


def make(slots: Slots) -> Batch:
    """Return the batch of these slots; runs in a worker."""
    return _assemblers[0].batch(slots)


def _start(assembler: Assembler) -> None:
    torch.set_num_threads(1)
    _assemblers.append(assembler)
