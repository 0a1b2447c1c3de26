"""What DeepSpeed must find around it while it is imported and started; undone when the block ends."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Make torch.compile leave functions as they are."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TORCHDYNAMO_DISABLE"]
        if before is not None:
            os.environ["TORCHDYNAMO_DISABLE"] = before


@contextlib.contextmanager
def group_timeout(seconds: float) -> Iterator[None]:
    """Make new process groups give up after our timeout: those that DeepSpeed clones would wait for 30 minutes."""
    original = dist.new_group

    def with_timeout(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # whatever torch takes
        return original(*args, **{"timeout": timedelta(seconds=seconds), **kwargs})

    dist.new_group = with_timeout
    try:
        yield
    finally:
        dist.new_group = original
