"""Whole runs by the command: started, killed, resumed, and what they left.

They train on the digits; tiny ones on pictures of one colour.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.gpu.setting import ROOT, Found, Setting

# A start takes longer than these steps.
_TINY = ("model.num_latents=8", "model.latent_width=16", "model.num_blocks=1", "model.layers_per_block=1")
_TINY_PICTURES = 40


@dataclass(frozen=True)
class Run:
    """A run's folder, and the process that trains it."""

    folder: Path
    process: subprocess.Popen[bytes]

    @staticmethod
    def start(setting: Setting, name: str, steps: int, *changes: str) -> "Run":
        """Start a run, or resume the one of that name."""
        folder = setting.work / "runs" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        config = ["configs/pictures.yaml", *_TINY] if setting.is_tiny else ["configs/digits.yaml"]
        command = [sys.executable, "-m", "launch", "train", *config, f"data.shards={setting.shards}"]
        command += [f"train.steps={steps}", "train.evaluate_every_steps=0", "checkpoint.save_every_minutes=0"]
        command += ["train.log_every_steps=1", "optimizer.warmup_steps=5", *changes, "--run", str(folder)]
        with folder.with_suffix(".log").open("ab") as log:
            return Run(folder, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))

    def log(self) -> str:
        """Return the end of what it printed."""
        return self.folder.with_suffix(".log").read_text(errors="replace")[-400:]

    def lines(self, kind: str) -> list[Found]:
        """Return its records of a kind."""
        path = self.folder / "metrics.jsonl"
        records = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return [record for record in records if record["kind"] == kind]

    def weights(self) -> dict[str, str]:
        """Return the hashes of the files of its newest checkpoint."""
        paths = sorted((self.folder / "checkpoints").glob("step_*/checkpoint.json"))
        files = json.loads(paths[-1].read_text())["files"] if paths else {}
        return {name: record["xxh3"] for name, record in files.items()}

    def last_step(self) -> int:
        """Return the step of its newest whole checkpoint."""
        paths = sorted((self.folder / "checkpoints").glob("step_*/checkpoint.json"))
        return int(paths[-1].parent.name.removeprefix("step_")) if paths else 0

    def kill_after_a_save(self) -> int:
        """Kill it as soon as a checkpoint is whole; return the step of the newest. The part's limit ends the wait."""
        while self.process.poll() is None and not self.last_step():
            time.sleep(0.02)
        # No signal that a run may answer: what is tested is a machine that goes off.
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.last_step()


def wait_for_shards(setting: Setting) -> None:
    """Wait until the shards are there, which the kit began to build at its start."""
    deadline = time.monotonic() + 120
    while not (setting.work / "shards.built").exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the shards are not built: {(setting.work / 'shards.log').read_text()[-400:]}")
        time.sleep(0.1)


def build_shards(setting: Setting) -> subprocess.Popen[bytes]:
    """Start to build the shards; a file beside them says that they are whole."""
    (setting.work / "shards.built").unlink(missing_ok=True)
    for folder in (setting.shards, setting.work / "runs"):
        shutil.rmtree(folder, ignore_errors=True)
    source = ["image-folder", _pictures(setting), "--test-share", "0.2"] if setting.is_tiny else ["digits"]
    shell = 'built=$1; shift; "$0" -m launch data build "$@" "$built" && touch "$built.built"'
    command = ["sh", "-c", shell, sys.executable, str(setting.shards), *source]
    with (setting.work / "shards.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ))


def _pictures(setting: Setting) -> str:
    """Write pictures of two classes, and return their folder."""
    folder = setting.work / "pictures"
    for number in range(2 * _TINY_PICTURES):
        path = folder / ("dark", "bright")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (128 * (number % 2) + number,) * 3).save(path)
    return str(folder)
