"""Measure all parts: python -m benchmarks.gpu --out FOLDER [--device cpu --tiny]

Each part is a process of its own with a limit, so that a crash or a hang costs one part; FOLDER/gpu_check.json is
written again after each. Parts come in the order of what they tell, and the last have what time is left. Tiny parts
that follow each other share a process, since it takes longer to start than they do.
"""

import argparse
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.runs import build_shards
from benchmarks.gpu.setting import ROOT, Found, Setting

# Seconds, which are 465 together: of the 8 minutes that a run takes at the most, the start has the rest.
LIMITS = {
    "facts": 35,
    "networks": 130,
    "blocks": 25,
    "resume": 75,
    "step": 70,
    "kernel": 55,
    "constants": 25,
    "zero": 50,
}
OF_RUNS = frozenset({"resume", "zero"})
"""The parts that start whole runs."""
# A CPU that others use too is slower than a GPU, even at tiny sizes.
TINY_PATIENCE = 8
# Less is no use to any part.
LEAST_SECONDS = 15


def main() -> int:
    """Run the parts, or one of them; return how many of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the kit itself on a CPU")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=465, help="of all parts together")
    parser.add_argument("--parts", default=",".join(LIMITS), help="which, in their order")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    setting = Setting(torch.device(given.device), given.tiny, given.out.resolve())
    if given.only:
        for part in given.only.split(","):
            measure(setting, part)
        return 0
    setting.out.mkdir(parents=True, exist_ok=True)
    patience = TINY_PATIENCE if given.tiny else 1
    return run(setting, given.parts.split(","), given.seconds * patience, patience)


def measure(setting: Setting, part: str) -> None:
    """Measure a part in this process."""
    if part not in OF_RUNS:
        from trainer.config import TrainConfig
        from trainer.engine import arithmetic

        # Read when CUDA starts.
        arithmetic.prepare(TrainConfig())
    began = time.monotonic()
    found = importlib.import_module(f"benchmarks.gpu.{part}").measure(setting)
    setting.keep(part, {**found, "seconds": round(time.monotonic() - began, 1)})


def run(setting: Setting, parts: list[str], seconds: float, patience: int) -> int:
    """Run each part within its limit and what is left of all; return how many failed."""
    ends = time.monotonic() + seconds
    building = build_shards(setting) if OF_RUNS & set(parts) else None
    whole: dict[str, Found] = {}
    for together in grouped(parts) if setting.is_tiny else [[part] for part in parts]:
        left = min(sum(LIMITS[part] for part in together) * patience, ends - time.monotonic())
        if left >= LEAST_SECONDS:
            whole |= measured(setting, together, left)
        else:
            whole |= {part: {"failed": "no time was left"} for part in together}
        (setting.out / "gpu_check.json").write_text(json.dumps(whole, indent=1))
        for part in together:
            print(
                f"== {part}: {whole[part].get('failed', 'measured')} in {whole[part].get('seconds', 0)} s", flush=True
            )
    if building:
        building.wait()
    return sum("failed" in found for found in whole.values())


def grouped(parts: Sequence[str]) -> list[list[str]]:
    """Return the parts in groups: those of whole runs are alone, as they measure processes of their own."""
    return [list(group) for _, group in itertools.groupby(parts, lambda part: part if part in OF_RUNS else "")]


def measured(setting: Setting, parts: Sequence[str], limit: float) -> dict[str, Found]:
    """Return what parts found in a process of their own, as far as it came."""
    log = setting.out / f"{parts[0]}.log"
    for part in parts:
        (setting.out / f"{part}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", *setting.command, "--only", ",".join(parts)]
    began = time.monotonic()
    with log.open("wb") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: int | str = child.wait(limit)
        except subprocess.TimeoutExpired:
            # With all that it started: whole runs are in its session.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = f"its limit of {limit:.0f} s"
    seconds = round(time.monotonic() - began, 1)
    failed = {"failed": f"ended with {status}", "log": log.read_text(errors="replace")[-1_500:]} if status else {}
    return {part: _found(setting, part, seconds, failed) for part in parts}


def _found(setting: Setting, part: str, seconds: float, failed: Found) -> Found:
    """Return what a part left; one that has its seconds came to its end."""
    path = setting.out / f"{part}.json"
    found: Found = json.loads(path.read_text()) if path.exists() else {}
    return found if "seconds" in found else {**found, "seconds": seconds, **failed}


if __name__ == "__main__":
    sys.exit(main())
