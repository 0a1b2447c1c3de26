"""Triton's interpreter, for the files that test a kernel by it."""

import pytest

# Imported in the fixtures: most tests of this folder need no Triton.


@pytest.fixture
def _interpreted_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter take what Triton has written in Triton, which it does only if it was asked for at import."""
    import triton

    language, combine = triton.language, triton.language.standard
    monkeypatch.setattr(language, "sum", lambda values, axis: language.reduce(values, axis, combine._sum_combine))
    monkeypatch.setattr(language, "max", lambda values, axis: language.reduce(values, axis, combine._elementwise_max))


@pytest.fixture
def _interpreted(monkeypatch: pytest.MonkeyPatch, _interpreted_functions: None) -> None:
    """Let Triton interpret the kernel of grids, on the CPU and in the precision of its arguments."""
    from triton.runtime import interpreter

    from model.attention.absorbed import grid_kernel

    monkeypatch.setattr(grid_kernel, "_products", interpreter.InterpretedFunction(grid_kernel._products.fn).rewrite())
    monkeypatch.setattr(grid_kernel, "_read_kernel", interpreter.InterpretedFunction(grid_kernel._read_kernel.fn))
