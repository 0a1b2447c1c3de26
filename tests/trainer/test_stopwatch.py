"""The compiler's own account of its time is the one that the ledger takes over."""

import torch

from trainer.stopwatch import compile_seconds


def test_compile_seconds_grow_by_what_is_compiled_and_by_nothing_else() -> None:
    values = torch.ones(3)
    doubled = torch.compile(double, backend="eager")
    before = compile_seconds()
    torch.testing.assert_close(doubled(values), values * 2)
    after = compile_seconds()
    assert after > before
    doubled(values)
    assert compile_seconds() == after


def double(values: torch.Tensor) -> torch.Tensor:
    return values * 2
