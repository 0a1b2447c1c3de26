"""New samples answered by several processes, and by two after one was killed: the same table each time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ports import free_port
from warm_start import WarmProcess

sys.path.insert(0, str(Path(__file__).parents[1] / "launch"))
from test_predict import make_run, picture, predicted, run

pytestmark = pytest.mark.slow
__all__ = ["make_run", "run"]
REPOSITORY = Path(__file__).parents[2]


def started(run: Path, paths: list[str], out: Path, num_processes: int) -> list[subprocess.Popen[str]]:
    """Start the command on every rank, as torchrun would."""
    port = str(free_port())
    own = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    own |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = ["predict", str(run), *paths, "--out", str(out), "--batch", "2", "--json"]
    return [
        WarmProcess(
            [sys.executable, "-m", "launch", *words],
            env=own | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(num_processes)
    ]


def test_two_processes_and_a_killed_command_that_is_repeated_give_the_table_of_one(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    paths = [str(new / picture(new / f"{number}.png", number)) for number in range(60)]
    Path(paths[7]).write_bytes(b"no picture")
    assert len(predicted(run, *paths, out=tmp_path / "one.jsonl", batch=2)) == 59
    out, unfinished = tmp_path / "killed.jsonl", tmp_path / "killed.jsonl.unfinished"
    (process,) = started(run, paths, out, 1)
    while not (unfinished / "000003").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=240)
    assert not out.exists()
    assert 4 <= len(list(unfinished.glob("0*"))) < 30, "it was killed in the middle"
    # A mark by which a part is known: what was answered before the kill is not answered again.
    part = unfinished / "000002"
    part.write_bytes(part.read_bytes().replace(b"}\n", b"} \n"))
    processes = started(run, paths, out, 2)
    told = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert (json.loads(told[0][0])["num_skipped"], told[1][0]) == (1, "")
    assert out.read_bytes().count(b"} \n") == 2
    assert out.read_bytes().replace(b"} \n", b"}\n") == (tmp_path / "one.jsonl").read_bytes()
