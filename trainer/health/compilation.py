"""Reports every compilation to the hang watch: it takes longer than a step, and happens within one."""

from collections.abc import Iterator
from contextlib import contextmanager

from trainer.health.hang import HangWatch


@contextmanager
def told_of_compiling(hang: HangWatch) -> Iterator[None]:
    """Report to the watch when torch.compile begins and ends: forward, backward, and again for another shape."""
    # Loading the compiler takes seconds, and most runs on a CPU do not compile.
    from torch._dynamo.callback import callback_handler

    begins = callback_handler.register_start_callback(lambda _: hang.compiles())
    ends = callback_handler.register_end_callback(lambda _: hang.compiled())
    try:
        yield
    finally:
        callback_handler.remove_start_callback(begins)
        callback_handler.remove_end_callback(ends)
