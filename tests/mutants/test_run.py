"""A test that reaches a fault is run by its whole id: of one that is not there, pytest says no word of the fault."""

import pytest
from run import id_of


@pytest.mark.parametrize("test", ["tests/a.py::test_b", "tests/a.py::test_b[x (y) (call)-z]", "tests/a.py::test_b[|]"])
@pytest.mark.parametrize("phase", ["", " (setup)", " (call)", " (teardown)", " (call)|dynamic"])
def test_a_context_names_its_test(test: str, phase: str) -> None:
    assert id_of(f"{test}{phase}") == test
