"""All ranks fail or none: a user's error is printed once, and every rank exits with the same status."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import torch

from data_shards.files.atomic import of_disk
from data_shards.files.plugin_files import fault_in
from launch.lifecycle.exit_status import BAD_INPUT
from trainer.distributed import devices
from trainer.distributed.world import World

T = TypeVar("T")


def together(world: World, work: Callable[[], T]) -> T:
    """Return what the work returned; where a user's error or the disk's ended it on any rank, all end. Collective.

    Rank 0 raises a ValueError with the sentences of all; the others leave with the same exit status, in silence.
    """
    result: T | None = None
    sentence = ""
    has_failed = False
    try:
        result = work()
    # What a user can correct, here and below. Any other error ends this rank with a traceback, and breaks the exchanges
    # of the others.
    except ValueError as error:
        sentence, has_failed = fault_in(error) or str(error), True
    except OSError as error:
        sentence, has_failed = of_disk(error), True
        if not sentence:
            raise
    # One small exchange where all is well.
    if world.maximum(torch.tensor(float(has_failed))):
        leave(world, sentence)
    return result  # type: ignore[return-value]  # the work returned


def leave(world: World, sentence: str) -> NoReturn:
    """End on all ranks, as `together` does, with what this rank has to say, which may be nothing. Collective."""
    # A set: what is wrong with the input is wrong on every rank, and is said once.
    sentences = {text for text in world.gather(sentence) if text}
    # Before anybody leaves: a process that ends while gloo still holds a tensor aborts with status 134, and a run with
    # bad input would be started again.
    world.settle()
    # Each rank has a log of its own: the sentence is to stand in one of them.
    if world.is_first:
        raise ValueError("\n".join(sorted(sentences)))
    raise SystemExit(BAD_INPUT)


def joined(timeout_seconds: float) -> World:
    """Join the processes of this command; all end where two of them would share a GPU. Collective."""
    world = World.from_environment(timeout_seconds)
    if world.device.type == "cuda":
        gpus = world.gather(devices.of_this_process(world.device.index))
        together(world, lambda: devices.refuse_shared(gpus))
    return world


def batches_of_all(world: World, batches: Callable[[int], T]) -> Callable[[int], T]:
    """Return the same batches, asked for by all ranks at once: one that a rank cannot have ends all. Collective."""
    # A bad batch is met by one rank alone, and the others would wait for it in the next exchange.
    return lambda step: together(world, lambda: batches(step))


@contextmanager
def told_by_first(world: World, error: type[ValueError]) -> Iterator[None]:
    """Let rank 0 report an error that all ranks raise; the other ranks exit silently with the same status."""
    try:
        yield
    except error:
        world.settle()
        if world.is_first:
            raise
        raise SystemExit(BAD_INPUT) from None


def first_does(world: World, work: Callable[[], object]) -> None:
    """Let rank 0 do the work and the others wait for it; it fails on all or on none. Collective."""
    together(world, work if world.is_first else lambda: None)
