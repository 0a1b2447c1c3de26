"""Every example runs as its first lines say, and what it promises is true."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ports import free_port
from safetensors.torch import load_file, save_file
from warm_start import WarmProcess

from configs.network import network_config
from data_shards.building.builder import build_table
from data_shards.sources import digits
from model.perceiver import Perceiver

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
pytestmark = pytest.mark.slow


# DeepSpeed would compile an operation for inference on CPUs, for a minute on both cores, which nobody calls.
WITHOUT_BUILD = """
import runpy, sys
from deepspeed.ops import __compatible_ops__
__compatible_ops__["deepspeed_shm_comm"] = False
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(name: str, *words: object, **variables: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    before = ["-c", WITHOUT_BUILD] if name == "own_engine.py" else []
    command = [sys.executable, *before, str(EXAMPLES / name), *map(str, words)]
    return WarmProcess(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lines(process: "subprocess.Popen[str]") -> list[str]:
    output, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return output.splitlines()


def killed_at(process: "subprocess.Popen[str]", step: int) -> None:
    """Kill a process when it has printed this step."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[0] == str(step):
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=280)
    assert process.returncode == -signal.SIGKILL


def by_step(printed: list[str]) -> dict[str, str]:
    return {line.split()[0]: line for line in printed if line.split()[0].isdecimal()}


def test_the_network_alone(tmp_path: Path) -> None:
    expected = ["{'label': (2, 2)}"]
    assert lines(start("network.py")) == expected
    save_file(Perceiver(network_config("pictures"), seed=1).state_dict(), tmp_path / "weights.safetensors")
    assert lines(start("network.py", tmp_path / "weights.safetensors")) == expected


def test_a_loop_of_ones_own_that_is_killed_resumes_with_equal_bits(tmp_path: Path) -> None:
    # Of the built-in digits what the loop reads, images: to encode their clips takes longer than to train.
    rows = [
        replace(row, members=tuple(each for each in row.members if each.extension == "png"))
        for row in digits.rows(seed=0)
    ]
    build_table(rows, tmp_path / "shards", label_names=digits.NAMES, samples_per_shard=digits.SAMPLES_PER_SHARD)
    whole = by_step(lines(start("own_loop.py", tmp_path / "shards", tmp_path / "whole")))
    killed_at(start("own_loop.py", tmp_path / "shards", tmp_path / "killed"), 35)
    rest = by_step(lines(start("own_loop.py", tmp_path / "shards", tmp_path / "killed")))
    assert len(whole) == 60
    assert len(rest) < 60
    assert rest.items() <= whole.items()
    one, other = (next((tmp_path / name / "step_00000060").glob("weight-*")) for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    assert load_file(one)["1.weight"].shape == (64, 192)


def test_an_engine_of_ones_own_that_is_killed_resumes_with_equal_bits(tmp_path: Path) -> None:
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    alone["MASTER_PORT"] = str(free_port())
    whole = by_step(lines(start("own_engine.py", tmp_path / "whole", **alone)))
    killed_at(start("own_engine.py", tmp_path / "killed", **alone), 13)
    rest = by_step(lines(start("own_engine.py", tmp_path / "killed", **alone)))
    assert len(whole) == 20
    assert len(rest) < 20
    assert rest.items() <= whole.items()
