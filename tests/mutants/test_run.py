"""Which tests may notice a fault: those that reach it, by their whole ids."""

import pytest
from run import Reach, id_of


@pytest.mark.parametrize("test", ["tests/a.py::test_b", "tests/a.py::test_b[x (y) (call)-z]", "tests/a.py::test_b[|]"])
@pytest.mark.parametrize("phase", ["", " (setup)", " (call)", " (teardown)", " (call)|dynamic"])
def test_a_context_names_its_test(test: str, phase: str) -> None:
    assert id_of(f"{test}{phase}") == test


def test_what_runs_at_import_is_used_by_every_test_of_its_file() -> None:
    lines = {"model/a.py": {"1": ["tests/model/test_b.py::x"], "3": ["tests/model/test_a.py::y"]}}
    reach = Reach(lines, {"tests/model/test_a.py::y": 9.0, "tests/model/test_b.py::x": 1.0})
    assert reach.tests("model/a.py", 1, is_at_import=False) == ["tests/model/test_b.py::x"]
    assert reach.tests("model/a.py", 1, is_at_import=True) == ["tests/model/test_a.py::y", "tests/model/test_b.py::x"]
    assert reach.tests("model/c.py", 1, is_at_import=True) == []
