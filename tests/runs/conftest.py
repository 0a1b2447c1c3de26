"""Whole runs through the real command, in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ports import free_port
from warm_start import Warm, WarmProcess

from data_shards.building.builder import build_table
from data_shards.sources import digits

TINY = """
data:
  inputs:
    image: {modality: image, height: 8, width: 8, shift_pixels: 1}
    audio: {modality: audio, num_samples: 800}
  modality_dropout: {audio: 0.3}
  lanes: 8
  window: 64
  num_threads: 1
model:
  inputs:
    image: {height: 8, width: 8, positions: {num_bands: 2}}
    audio: {num_samples: 800, patch: 80, positions: {num_bands: 4}}
  outputs:
    label: {kind: label, num_classes: 10}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 2
  num_blocks: 2
  layers_per_block: 1
  self_attend: {num_heads: 2}
  nested_latents: [4, 8]
  dropout: 0.1
  drop_path: 0.1
ema: {decay: 0.9, every_steps: 2}
train: {steps: 40, global_batch: 16, log_every_steps: 1}
checkpoint: {save_every_steps: 5, save_every_minutes: 0}
"""

TEST_SAMPLES = 100


@dataclass(frozen=True)
class Run:
    """A run folder and how its processes are started."""

    folder: Path
    config: Path
    shards: Path
    num_processes: int

    def start(self, *overrides: str) -> list[subprocess.Popen[str]]:
        """Start `perceiver train` on every rank, as torchrun would."""
        command = [sys.executable, "-m", "launch", "train", str(self.config), f"data.shards={self.shards}", *overrides]
        port = free_port()
        return [
            WarmProcess(
                [*command, "--run", str(self.folder), "--json"],
                env=environment(rank, self.num_processes, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for rank in range(self.num_processes)
        ]

    def finish(self, *overrides: str) -> list[tuple[int, str, str]]:
        """Start, wait, and return (exit status, output, errors) of every rank."""
        return [wait(process) for process in self.start(*overrides)]

    def kill_after_checkpoint(self, *, step: int, rank: int) -> None:
        """Start, and kill one rank with SIGKILL as soon as there is a checkpoint of this step or a later one."""
        processes = self.start()
        while not self.checkpoints() or int(self.checkpoints()[-1].name.removeprefix("step_")) < step:
            with suppress(subprocess.TimeoutExpired):
                status = processes[0].wait(timeout=0.02)
                pytest.fail(f"ended with status {status} before step {step}: {processes[0].stderr.read()}")
        processes[rank].kill()
        assert all(status != 0 for status, _, _ in map(wait, processes)), "a rank did not notice that its peer is gone"

    def losses(self) -> dict[int, float]:
        """Return the logged loss of every step; a step that stands twice fails."""
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows if row["kind"] == "train"]
        assert len(steps) == len(set(steps)), "a step was logged twice"
        return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}

    def weights(self) -> dict[str, bytes]:
        """Return the bytes of all tensors of the newest checkpoint, moments included."""
        return {path.name: path.read_bytes() for path in sorted(self.checkpoints()[-1].glob("*.safetensors"))}

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints that are there, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step_*"))


def wait(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    # A run of this suite under a launcher must not lend its ranks to the runs under test.
    inherited = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    if world_size == 1:
        return inherited | here
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    return inherited | here | ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@pytest.fixture
def warm_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what this process starts with subprocess begin warm, and what that starts, too."""
    monkeypatch.setattr(subprocess, "Popen", Warm)


@pytest.fixture(scope="session")
def build_digits() -> Callable[[Path, int], None]:
    """Build the digits of a seed as far as these runs read them: images and tones, and a part of the test split.

    All clips of the digits take longer to encode, and the whole test split longer to evaluate, than a run trains.
    """

    def build(folder: Path, seed: int) -> None:
        rows = [
            replace(row, members=tuple(member for member in row.members if member.extension in ("png", "wav")))
            for row in digits.rows(seed=seed)
        ]
        train, test = ([row for row in rows if row.split == split] for split in ("train", "test"))
        labels, per_shard = digits.NAMES, digits.SAMPLES_PER_SHARD
        build_table([*train, *test[:TEST_SAMPLES]], folder, label_names=labels, seed=seed, samples_per_shard=per_shard)

    return build


@pytest.fixture(scope="session")
def digits_shards(tmp_path_factory: pytest.TempPathFactory, build_digits: Callable[[Path, int], None]) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "shards"
    build_digits(folder, 0)
    return folder


@pytest.fixture
def make_run(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Run]:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)

    def make(name: str, num_processes: int = 1, *, config: Path = config, shards: Path | None = None) -> Run:
        return Run(tmp_path / name, config, shards or request.getfixturevalue("digits_shards"), num_processes)

    return make


@pytest.fixture(scope="module")
def run_of_module(digits_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that is shared by the tests of a module, on a copy of the shards."""
    place = tmp_path_factory.mktemp("module")
    (place / "tiny.yaml").write_text(TINY)
    return Run(place / "run", place / "tiny.yaml", shutil.copytree(digits_shards, place / "shards"), 1)
