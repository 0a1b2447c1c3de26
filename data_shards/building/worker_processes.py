"""Worker processes that know the same plug-ins, and end when the process that started them ends."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from data_shards.files import plugin_files
from data_shards.modalities.kinds.catalogue import BY_NAME, plugins


def start(num_processes: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes: a forked copy of a process with threads can hang on a lock that one held."""
    context = multiprocessing.get_context("spawn")
    arguments = plugin_files.paths(), pickle.dumps(plugins())
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=_follow_parent, initargs=arguments)


def _follow_parent(paths: Sequence[Path], modalities: bytes) -> None:
    # A class of a plug-in is found again only where the plug-in was run before.
    for path in paths:
        plugin_files.run(path)
    BY_NAME.update(pickle.loads(modalities))
    # Ctrl-C goes to the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as the parent is gone: the pool's own processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
