"""Which tests may notice a fault: those that reach it, by their whole ids. Which faults do not count."""

import json
from itertools import groupby

import pytest
from edits import faults
from run import EQUIVALENT, REPOSITORY, Reach, empty_caches, id_of, mutant_of


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


def test_who_reads_a_constant_runs_no_line_of_its_file() -> None:
    own, other, foreign = "tests/model/test_a.py::y", "tests/model/test_b.py::x", "tests/trainer/test_a.py::z"
    reach = Reach({"model/parts/a.py": {"3": [other]}}, {other: 1.0, own: 9.0, foreign: 1.0})
    assert reach.tests("model/parts/a.py", 1, is_at_import=True) == [own, other]
    assert reach.tests("model/parts/a.py", 3, is_at_import=False) == [other]


def test_every_equivalent_fault_is_one_that_would_be_planted_today() -> None:
    """An entry whose line has moved or changed excuses nothing, or another fault than its reason speaks of."""
    equivalent = json.loads(EQUIVALENT.read_text())
    stale = []
    for file, entries in groupby(sorted(equivalent, key=lambda known: known["file"]), lambda known: known["file"]):
        path = REPOSITORY / file
        source = path.read_bytes() if path.exists() else b""
        planted = {(each.before, each.after) for each in (mutant_of(file, source, fault) for fault in faults(source))}
        stale += [known for known in entries if (known["before"], known["after"]) not in planted]
    assert not stale
    assert all(known["reason"] for known in equivalent)
    assert len({(known["file"], known["before"], known["after"]) for known in equivalent}) == len(equivalent)


def test_what_a_test_leaves_in_a_cache_does_not_hide_what_the_next_one_reaches() -> None:
    from data_shards.modalities.transforms.resample import _phases

    _phases(1, 2)
    empty_caches()
    assert _phases.cache_info().currsize == 0
