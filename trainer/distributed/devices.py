"""The GPU of a process, among those that its launcher makes visible."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from data_shards.files.quoting import counted


@dataclass(frozen=True)
class Gpu:
    """The GPU of one rank; two ranks with equal ones share it."""

    host: str
    uuid: str


def index(local_rank: int, num_visible: int) -> int:
    """Return the number, among the visible GPUs, of the one that a process takes.

    Where the launcher shows each process its own, as `srun --gpus-per-task=1` does, the local rank is larger than their
    number. That each one is taken once is for `refuse_shared` to see: what others are shown is not known here.
    """
    return local_rank % num_visible


def of_this_process(number: int, environment: Mapping[str, str] = os.environ) -> Gpu:
    """Return the GPU with that number among the visible ones."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    uuid = str(torch.cuda.get_device_properties(number).uuid)
    # The slices of one GPU may all give its own id; they are named in the variable, or not used at all.
    if number < len(visible) and visible[number].startswith("MIG-"):
        uuid = visible[number]
    return Gpu(socket.gethostname(), uuid)


def refuse_shared(gpus: Sequence[Gpu]) -> None:
    """Raise ValueError where two ranks, of which this is the list in their order, have taken the same GPU."""
    taken: dict[tuple[str, str], int] = {}
    for rank, gpu in enumerate(gpus):
        other = taken.setdefault((gpu.host, gpu.uuid), rank)
        if other != rank:
            here = sum(one.host == gpu.host for one in gpus)
            there = len({one.uuid for one in gpus if one.host == gpu.host})
            raise ValueError(
                f"{gpu.host} has {counted(here, 'process')} and {counted(there, 'GPU')} that they see: ranks "
                f"{other} and {rank} would share one; start a process a GPU (--procs here; on Slurm processes_per_node "
                "and gpus_per_node of the profile)"
            )
