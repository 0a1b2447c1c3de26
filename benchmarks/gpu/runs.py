"""Whole runs of the digits by the command: started, killed, resumed, and what they left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.setting import ROOT, Found, Setting


@dataclass(frozen=True)
class Run:
    """A run's folder, and the process that trains it."""

    folder: Path
    process: subprocess.Popen[bytes]

    @staticmethod
    def start(setting: Setting, name: str, steps: int, *changes: str) -> "Run":
        """Start a run, or resume the one of that name."""
        folder = setting.out / "runs" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "launch", "train", "configs/digits.yaml", f"data.shards={setting.digits}"]
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
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.last_step()


def wait_for_digits(setting: Setting) -> None:
    """Wait until the shards are there, which the kit began to build at its start."""
    deadline = time.monotonic() + 120
    while not (setting.out / "digits.built").exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the digits are not built: {(setting.out / 'digits.log').read_text()[-400:]}")
        time.sleep(0.1)


def build_digits(setting: Setting) -> subprocess.Popen[bytes]:
    """Start to build the shards; a file beside them says that they are whole."""
    (setting.out / "digits.built").unlink(missing_ok=True)
    for folder in (setting.digits, setting.out / "runs"):
        shutil.rmtree(folder, ignore_errors=True)
    log = (setting.out / "digits.log").open("wb")
    shell = '"$0" -m launch data build digits "$1" && touch "$1.built"'
    command = ["sh", "-c", shell, sys.executable, str(setting.digits)]
    with log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ))
