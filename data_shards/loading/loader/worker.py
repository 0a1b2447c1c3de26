"""A process that builds batches, for transforms that hold the interpreter's lock. Threads do for all others.

A batch comes back as a few tensors in shared memory: torch hands on their descriptors, not their bytes.

    parent   assembler, once, when the process starts   ->   worker: reader, decoders and memory of its own
             slots: some kB of numbers                  ->
             descriptors of shared memory               <-   batch
"""

import multiprocessing
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import torch

from data_shards.files import plugin_files
from data_shards.loading.batch import Batch
from data_shards.loading.collate import Assembler
from data_shards.order.sample_order import Slots

_assemblers: list[Assembler] = []
"""The one of this process: it is opened once, when the process starts, and a task can bring no such thing along."""


def processes(assembler: Assembler, num_processes: int) -> ProcessPoolExecutor:
    """Return processes that run `make`. Spawned: a fork of a process with threads may never wake up."""
    context = multiprocessing.get_context("spawn")
    # A class of a plug-in is found again only where the plug-in was run before.
    arguments = plugin_files.paths(), bytes(ForkingPickler.dumps(assembler))
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=_start, initargs=arguments)


def make(slots: Slots) -> Batch:
    """Return the batch of these slots; runs in a worker."""
    return _assemblers[0].batch(slots)


def _start(plugins: Sequence[Path], assembler: bytes) -> None:
    # A process for each core decodes already: torch's own threads would only take turns with the others' work.
    torch.set_num_threads(1)
    for path in plugins:
        plugin_files.run(path)
    _assemblers.append(pickle.loads(assembler))
