"""benchmarks/scale measures what it says, in its tiny form."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import __main__ as scale
from benchmarks.scale.world import extents
from trainer.optim.ownership import owners

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Any]:
    folder = tmp_path_factory.mktemp("scale")
    command = [sys.executable, "-m", "benchmarks.scale", "--tiny", "--json", "scale.json", "--picture", "scale.png"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "scale.png").stat().st_size > 10_000
    found = json.loads((folder / "scale.json").read_text())
    assert len(done.stdout.splitlines()) == 2 + len({(row["part"], row["rank"]) for row in found["rows"]})
    return {(row["part"], row["world_size"], row["rank"]): row for row in found["rows"]}


@pytest.mark.slow
def test_every_part_is_measured_at_every_number_of_ranks(rows: dict[tuple[str, int, int], Any]) -> None:
    assert {name for name, *_ in rows} == set(scale.PARTS)
    assert {(world_size, rank) for name, world_size, rank in rows if name == "save"} == {(2, 0), (2, 1), (8, 0), (8, 1)}
    assert all(row["seconds"] > 0 for row in rows.values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the calls")
def test_what_is_asked_of_the_shared_disk_does_not_grow_with_the_ranks(rows: dict[tuple[str, int, int], Any]) -> None:
    for rank in (0, 1):
        assert rows["step", 8, rank]["calls"] < 1
        assert rows["heartbeat", 8, rank]["calls"] < 8  # every rank of every rank would be more than 16 a second
        # There are as many tensors, of which each rank reads fewer.
        assert rows["load", 8, rank]["calls"] <= rows["load", 2, rank]["calls"]
    assert rows["save", 8, 1]["calls"] <= rows["save", 2, 1]["calls"]
    # Rank 0 removes the files of the checkpoint before.
    assert rows["save", 8, 0]["calls"] <= rows["save", 2, 0]["calls"] + 2 * 3 * (8 - 2)
    # A start is over before its first heartbeat, which is two calls, or after it; one call more a rank would be six.
    assert rows["start", 8, 1]["calls"] <= rows["start", 2, 1]["calls"] + 2


@pytest.mark.slow
def test_a_commit_is_one_message_a_rank(rows: dict[tuple[str, int, int], Any]) -> None:
    one = rows["save", 8, 1]["bytes"]
    assert 0 < one["gather"] < 1000
    assert "all_gather" not in one


def test_marks_of_a_trace_say_whose_calls_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "\n".join(
            [
                '7 openat(AT_FDCWD</x>, "/data/early", O_RDONLY) = 3',
                '7 newfstatat(AT_FDCWD</x>, "/perceiver-scale/begin/save/8/1", 0x1, 0) = -1 ENOENT',
                '7 openat(AT_FDCWD</x>, "/data/a", O_RDONLY) = 3</data/a>',
                "8 read(3</data/a>, <unfinished ...>",
                "8 <... read resumed>) = 5</data/a>",
                '7 openat(AT_FDCWD</x>, "/usr/lib/b", O_RDONLY) = 3',
                '7 newfstatat(AT_FDCWD</x>, "/perceiver-scale/pause", 0x1, 0) = -1 ENOENT',
                '7 openat(AT_FDCWD</x>, "/data/of/others", O_RDONLY) = 3',
                '7 newfstatat(AT_FDCWD</x>, "/perceiver-scale/resume", 0x1, 0) = -1 ENOENT',
                "7 close(3</data/a>) = 0",
                '7 newfstatat(AT_FDCWD</x>, "/perceiver-scale/end", 0x1, 0) = -1 ENOENT',
                '7 openat(AT_FDCWD</x>, "/data/late", O_RDONLY) = 3',
            ]
        )
    )
    [(part, calls)] = scale.counted(log, "/data").items()
    assert (part, dict(calls)) == (("save", 8, 1), {"openat": 1, "read": 1, "close": 1})


def test_the_made_up_ranks_hold_each_element_once() -> None:
    held = [extents(rank, 64) for rank in range(64)]
    covered = sorted((each.start, each.stop) for rank in held for each in rank if each.name == "layer000")
    assert covered[0][0] == 0
    assert all(one[1] == two[0] for one, two in pairwise(covered))
    assert covered[-1][1] == 1024
    assert set(owners(held).values()) == set(range(64))
