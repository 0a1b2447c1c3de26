"""World: rank, world size and device of this process, and agreement between the ranks.

A rank that raises by itself leaves the others in their next exchange, until its timeout. So whatever can fail on one
rank alone goes through `from_first`, `from_each` or `agree`, and all ranks raise the same sentence:

    rank 0   work() raises           rank 0   work() raises -> (None, sentence) -+-> ValueError(sentence)
    rank 1   waits, 600 s            rank 1                                      +-> ValueError(sentence)
"""

import os
import pickle
import socket
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore, TCPStore

from data_shards.files.quoting import shown
from trainer.distributed import descriptors, devices

T = TypeVar("T")

_MESSAGE_BYTES = 4096
"""Room for what a rank reports of a save: three files with size and hash, or a sentence."""
# For gloo's thread to let go of the last tensor; a debugger that keeps it must not keep the process.
_RELEASE_SECONDS = 10.0
_LOOPBACK, _LOOPBACK_INTERFACE = "127.0.0.1", "lo" if sys.platform == "linux" else "lo0"


_LAUNCHERS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}
"""What launchers that do not set torchrun's variables say in their place: how many processes there are."""


@dataclass(frozen=True)
class World:
    """The processes of a run. Every method but the constructors is collective: all ranks must call it."""

    rank: int
    """This process among all, from 0."""
    world_size: int
    """The number of processes on all nodes."""
    local_rank: int
    """This process among those of its node, from 0."""
    device: torch.device
    """The device of this process."""
    group: dist.ProcessGroup | None = None
    """The processes' channel; None is the one that all of torch uses."""

    @staticmethod
    def from_environment(timeout_seconds: float = 600.0) -> "World":
        """Join the processes that torchrun's variables name; without them this process is alone.

        The only place where the environment is read. Collective.
        """
        if "RANK" not in os.environ:
            _refuse_copies(os.environ)
            return World.alone()
        missing = [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(f"RANK is set but {', '.join(missing)} is not; unset RANK, or start by torchrun")
        rank, world_size, local_rank = (_number(os.environ, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if not rank < world_size:
            raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}; unset both, or start by torchrun")
        device = _device(local_rank)
        timeout = timedelta(seconds=timeout_seconds)
        # Before the ranks meet: with some 250 ranks that all connect, 1 024 descriptors run out in the middle of an
        # exchange.
        _refuse_few_descriptors(local_rank, world_size)
        if world_size > descriptors.CONNECTED_RANKS:
            # A group of gloo then connects the pairs that exchange something, and not all: of 1 024 ranks about ten
            # with each. DeepSpeed makes groups that exchange nothing over gloo. The price: an exchange with a rank that
            # died before the two were connected waits until its time is up.
            os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
        # Objects and flags travel over gloo, tensors of the device over its own backend.
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        store = _local_store(rank, world_size, timeout) if _is_local() else None
        # Before DeepSpeed, which would join by itself, with a timeout of its own.
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        return World(rank, world_size, local_rank, device)

    @staticmethod
    def alone() -> "World":
        """Return the world of one process, which needs no launcher and no port."""
        device = _device(0)
        if not dist.is_initialized():
            backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
            # In memory, without a port that another process of the machine could have taken.
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return World(0, 1, 0, device)

    @staticmethod
    def of_torch(timeout_seconds: float = 600.0) -> "World":
        """Return the processes that torch.distributed has joined, over a channel of their own; else this one alone.

        The channel is one of gloo, whatever backend the others use, and tensors travel through host memory. Collective.
        """
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return World(0, 1, 0, torch.device("cpu"))
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))
        return World(dist.get_rank(), dist.get_world_size(), 0, torch.device("cpu"), group)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def twin(self, timeout_seconds: float) -> "World":
        """Return the same processes over a channel of their own, for a thread beside the training. Collective."""
        if self.world_size == 1:
            return replace(self, device=torch.device("cpu"))
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))
        return replace(self, device=torch.device("cpu"), group=group)

    def agree(self, flag: bool) -> bool:
        """Return whether any rank raised its flag. Collective."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks; the argument is left as it is. Collective."""
        if self.world_size == 1:
            return tensor
        # all_reduce overwrites what it is given.
        total = tensor.detach().clone()
        dist.all_reduce(total, group=self.group)
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the elementwise maximum over all ranks; the argument is left as it is. Collective."""
        if self.world_size == 1:
            return tensor
        largest = tensor.detach().clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        return largest

    def gather(self, item: T) -> list[T]:
        """Return everyone's item, in the order of the ranks. Collective."""
        if self.world_size == 1:
            return [item]
        items: list[T | None] = [None] * self.world_size
        dist.all_gather_object(items, item, group=self.group)
        return items  # type: ignore[return-value]  # all places are filled

    def broadcast(self, item: T) -> T:
        """Return rank 0's item. Collective."""
        if self.world_size == 1:
            return item
        items = [item]
        # With the device named, the object travels over gloo and not through the GPU.
        dist.broadcast_object_list(items, src=0, device=torch.device("cpu"), group=self.group)
        return items[0]

    def collect(self, item: T) -> list[T]:
        """Return everyone's item on rank 0, nothing elsewhere: one message a rank, of a few kilobytes. Collective."""
        if self.world_size == 1:
            return [item]
        # Messages of one length: with lengths of their own the ranks would have to exchange those first.
        content = pickle.dumps(item)
        assert len(content) <= _MESSAGE_BYTES, "an item that is too long for one message"
        message = torch.frombuffer(bytearray(content.ljust(_MESSAGE_BYTES, b"\0")), dtype=torch.uint8)
        messages = [torch.empty_like(message) for _ in range(self.world_size)] if self.is_first else None
        dist.gather(message, messages, group=self.group, group_dst=0)
        # What follows the end of a pickle is not read.
        return [pickle.loads(each.numpy().tobytes()) for each in messages or ()]

    def from_first(self, work: Callable[[], T]) -> T:
        """Return what the work returns on rank 0, which alone does it; its ValueError is raised on all. Collective."""
        result, problem = _tried(work) if self.is_first else (None, None)
        result, problem = self.broadcast((result, problem))
        if problem is not None:
            raise ValueError(problem)
        return result  # type: ignore[return-value]  # the work returned

    def from_each(self, work: Callable[[], T]) -> list[T]:
        """Return what the work returns on each rank; ValueError on all with the sentences of any. Collective."""
        outcomes = self.gather(_tried(work))
        if problems := sorted({problem for _, problem in outcomes if problem is not None}):
            raise ValueError("; ".join(problems))
        return [result for result, _ in outcomes]  # type: ignore[misc]  # the work returned

    def spread(self, tensor: Tensor, source: int) -> None:
        """Overwrite the tensor by that of the rank `source`. Collective."""
        if self.world_size > 1:
            # What a broadcast takes lies in one piece.
            whole = tensor.contiguous()
            dist.broadcast(whole, group=self.group, group_src=source)
            if whole is not tensor:
                tensor.copy_(whole)

    def exchange(self, tensor: Tensor, sent: list[int], expected: list[int]) -> Tensor:
        """Return what all ranks have for this one, in their order; `tensor` is what it has for each of them.

        `sent` and `expected` say how many elements that is, by rank. Collective.
        """
        received = tensor.new_empty(sum(expected))
        dist.all_to_all_single(received, tensor, expected, sent, group=self.group)
        return received

    def barrier(self) -> None:
        """Wait for all ranks. Collective."""
        # A sum over CPU tensors instead of dist.barrier(), which would pick a device of its own.
        self.sum(torch.zeros(()))

    def close(self) -> None:
        """Leave together. A process that ends without this can abort or hang at its exit. Collective."""
        self.settle()
        # A process alone leaves nobody waiting, and DeepSpeed keeps the first group that it saw for good.
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def settle(self) -> None:
        """Return when no exchange is under way, so that this process may end at any time. Collective."""
        if dist.is_initialized():
            last = torch.zeros(())
            dist.all_reduce(last)
            held = weakref.ref(last)
            del last
            # Gloo's thread lets go of a tensor after the exchange, for which it needs the interpreter: where that is
            # shutting down already, the process aborts. Destroying the group does not wait, since DeepSpeed keeps it.
            deadline = time.monotonic() + _RELEASE_SECONDS
            while held() is not None and time.monotonic() < deadline:
                time.sleep(0.001)


def _tried(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what the work returns and None, or None and the sentence of its ValueError."""
    try:
        return work(), None
    except ValueError as error:
        return None, str(error)


def _number(environment: Mapping[str, str], name: str) -> int:
    """Return the number that a launcher put into the environment, 0 where there is none."""
    text = environment.get(name, "0")
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{name}={shown(text)} is not a number; unset it, or start by torchrun, which sets it")
    return int(text)


def _refuse_copies(environment: Mapping[str, str]) -> None:
    """Raise ValueError where a launcher that is not understood started several processes: each would be alone."""
    for name, launcher in _LAUNCHERS.items():
        count = environment.get(name, "1")
        # The shell of `srun --pty` is one process, however many tasks the step has.
        if count.isdigit() and int(count) > 1 and "SLURM_PTY_PORT" not in environment:
            # By each of them: the first that leaves may take the others with it before they say a word.
            raise ValueError(
                f"{launcher} started {count} processes of this command ({name}={count}), which would not know of each "
                "other; let `perceiver submit` start them, or torchrun, or start one with --procs"
            )


def _refuse_few_descriptors(local_rank: int, world_size: int) -> None:
    """Raise the limit of open files, or ValueError if it is too low; one rank of each host reports it."""
    sentence = descriptors.problem(descriptors.raise_limit(), world_size)
    if sentence and local_rank == 0:
        raise ValueError(sentence)
    if sentence:
        raise SystemExit(2)


def _is_local() -> bool:
    """Return whether all ranks are on this machine, and meet without the store of a launcher such as torchrun."""
    # The agent of torchrun listens on the port already, and a second listener would fail.
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return not has_agent and os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1")


def _local_store(rank: int, world_size: int, timeout: timedelta) -> TCPStore:
    """Return where the ranks of one machine meet: torch's own would listen on every network, to whoever asks."""
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, _LOOPBACK_INTERFACE)
    port = _number(os.environ, "MASTER_PORT")
    listening = None
    if rank == 0:
        # All ranks call at once, and the kernel keeps no more callers waiting than it was asked to.
        server = socket.create_server((_LOOPBACK, port), backlog=max(128, world_size))
        listening = server.detach()
    return TCPStore(_LOOPBACK, port, world_size, rank == 0, timeout, master_listen_fd=listening)


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", devices.index(local_rank, torch.cuda.device_count()))
    # NCCL and DeepSpeed use the current device of the process.
    torch.cuda.set_device(device)
    return device
