"""Measure all parts: python -m benchmarks.gpu --out FOLDER [--device cpu --tiny]

Each part is a process of its own with a limit, so that a crash or a hang costs one part. FOLDER gets gpu_check.json,
written again after each part, and gpu_check.log, what the parts printed; all else is removed at the end. Parts come in
the order of what they tell, and the last have what time is left. Tiny parts share two processes, one for those that
start whole runs, since a process takes longer to start than they do.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
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
    parser.add_argument("--out", type=Path, help="folder of the result")
    parser.add_argument("--seconds", type=float, default=465, help="of all parts together")
    parser.add_argument("--parts", default=",".join(LIMITS), help="which, in their order")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device, parts = torch.device(given.device), given.parts.split(",")
    if given.only:
        for part in given.only.split(","):
            measure(Setting(device, given.tiny, given.work), part)
        return 0
    if given.out is None:
        parser.error("--out: name the folder of the result")
    if unknown := [part for part in parts if part not in LIMITS]:
        parser.error(f"--parts: expected some of {','.join(LIMITS)}, got {','.join(unknown)}")
    given.out.mkdir(parents=True, exist_ok=True)
    patience = TINY_PATIENCE if given.tiny else 1
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as work:
        setting = Setting(device, given.tiny, Path(work))
        return run(setting, given.out, parts, given.seconds * patience, patience)


def measure(setting: Setting, part: str) -> None:
    """Measure a part in this process."""
    if part not in OF_RUNS:
        from trainer.config import TrainConfig
        from trainer.engine import arithmetic

        # Read when CUDA starts.
        arithmetic.prepare(TrainConfig())
    began = time.monotonic()
    found = importlib.import_module(f"benchmarks.gpu.parts.{part}").measure(setting)
    setting.keep(part, {**found, "seconds": round(time.monotonic() - began, 1)})


def run(setting: Setting, out: Path, parts: list[str], seconds: float, patience: int) -> int:
    """Run each part within its limit and what is left of all; return how many failed."""
    (out / "gpu_check.log").unlink(missing_ok=True)
    # Empty, as at the first start of a user: the first step of a compiled network is measured.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(setting.work / "compiled")
    ends = time.monotonic() + seconds
    building = build_shards(setting) if OF_RUNS & set(parts) else None
    whole: dict[str, Found] = {}
    for together in grouped(parts) if setting.is_tiny else [[part] for part in parts]:
        left = min(sum(LIMITS[part] for part in together) * patience, ends - time.monotonic())
        if left >= LEAST_SECONDS:
            whole |= measured(setting, out / "gpu_check.log", together, left)
        else:
            whole |= {part: {"failed": "no time was left"} for part in together}
        whole = {part: whole[part] for part in parts if part in whole}
        (out / "gpu_check.json").write_text(json.dumps(whole, indent=1))
        for part in together:
            print(
                f"== {part}: {whole[part].get('failed', 'measured')} in {whole[part].get('seconds', 0)} s", flush=True
            )
    if building:
        building.wait()
    return sum("failed" in found for found in whole.values())


def grouped(parts: Sequence[str]) -> list[list[str]]:
    """Return the parts in two groups: those of whole runs measure processes of their own."""
    groups = [[part for part in parts if (part in OF_RUNS) == of_runs] for of_runs in (False, True)]
    return [group for group in groups if group]


def measured(setting: Setting, log: Path, parts: Sequence[str], limit: float) -> dict[str, Found]:
    """Return what parts found in a process of their own, as far as it came; what they print is added to the log."""
    command = [sys.executable, "-m", "benchmarks.gpu", *setting.command, "--only", ",".join(parts)]
    began = time.monotonic()
    with log.open("ab") as file:
        file.write(f"== {','.join(parts)}\n".encode())
        file.flush()
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
    path = setting.work / f"{part}.json"
    found: Found = json.loads(path.read_text()) if path.exists() else {}
    return found if "seconds" in found else {**found, "seconds": seconds, **failed}


if __name__ == "__main__":
    sys.exit(main())
