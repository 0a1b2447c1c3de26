"""Shapes are checked while the tests run: every jaxtyping annotation of the model is executed."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["model"], "beartype.beartype")

RUNS = Path(__file__).parent / "runs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole runs first: they are the longest, and would keep one process busy when the others are done."""
    items.sort(key=lambda item: RUNS not in item.path.parents)
