"""What a run of 2 to 1 024 ranks asks of a rank and of the shared disk, by parts: seconds, file-system calls, bytes.

    python -m benchmarks.scale --json benchmarks/results/scale.json --picture docs/pictures/scale.png

One rank is real, all others are made up (see benchmarks/scale_parts.py); files are real, in a temporary folder. All is
done twice: for the seconds, and under strace, which counts the calls that name the folders of the run and the shards.
Without strace no calls are counted. Seconds are of one try, on a disk that nobody shares.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.scale_parts import (
    BEAT_SECONDS,
    NUM_ATTEMPTS,
    NUM_STEPS,
    PARTS,
    RANKS_A_NODE,
    make_run,
    make_shards,
    measured,
)

WORLD_SIZES = (2, 8, 64, 256, 1024)
NUM_SHARDS = 100_000
TINY_WORLD_SIZES, TINY_SHARDS = (2, 8), 100
_MARK = re.compile(r'"/perceiver-scale/([^"]*)"')
_TRACER = ("strace", "-f", "-y", "--seccomp-bpf", "-qq", "-e", "trace=%file,%desc", "-e", "signal=none")
_UNITS = {"step": NUM_STEPS, "heartbeat": BEAT_SECONDS}
"""What the figures of a part are divided by, where they are not of the part as a whole."""
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="2 and 8 ranks, 100 shards")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    world_sizes = TINY_WORLD_SIZES if arguments.tiny else WORLD_SIZES
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, world_sizes)))
        return
    num_shards = TINY_SHARDS if arguments.tiny else NUM_SHARDS
    with tempfile.TemporaryDirectory(prefix="perceiver-scale-") as folder:
        rows = both(Path(folder), num_shards, tiny=arguments.tiny)
    print(table(rows))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        sizes = {"num_shards": num_shards, "num_attempts": NUM_ATTEMPTS, "ranks_a_node": RANKS_A_NODE}
        arguments.json.write_text(json.dumps({**where(), **sizes, "rows": rows}, indent=1) + "\n")
    if arguments.picture:
        draw(rows, arguments.picture)


def measure(folder: Path, world_sizes: tuple[int, ...]) -> list[Row]:
    """Return the seconds and bytes of each part at each number of ranks, by ranks that stand for all."""
    rows = []
    for world_size in world_sizes:
        run = make_run(folder / f"run{world_size}", folder / "shards")
        for name in PARTS:
            told: list[object] = []
            for rank in (0,) if name == "status" else (0, 1, RANKS_A_NODE):
                if rank < world_size:
                    script, seconds = measured(name, run, rank, world_size, list(told))
                    told = script.told if rank == 0 else told
                    unit = _UNITS.get(name, 1)
                    row: Row = {"part": name, "world_size": world_size, "rank": rank, "seconds": seconds / unit}
                    row |= {"exchanges": script.exchanges / unit}
                    row |= {"bytes": {kind: count / unit for kind, count in script.num_bytes.items()}}
                    rows.append(row)
    return rows


def both(folder: Path, num_shards: int, *, tiny: bool) -> list[Row]:
    """Return what was measured, with the calls of a second time under strace."""
    make_shards(folder / "shards", num_shards)
    rows = _measured_apart(folder, [], tiny=tiny)
    if shutil.which("strace"):
        for run in folder.glob("run*"):
            shutil.rmtree(run)
        log = folder.with_name(f"{folder.name}.strace")
        tracer = [
            "strace",
            "-f",
            "-y",
            "--seccomp-bpf",
            "-qq",
            "-e",
            "trace=%file,%desc",
            "-e",
            "signal=none",
            "-o",
            str(log),
        ]
        try:
            _measured_apart(folder, tracer, tiny=tiny)
            calls = counted(log, str(folder))
        finally:
            log.unlink(missing_ok=True)
        for row in rows:
            found = calls.get((row["part"], row["world_size"], row["rank"]), Counter())
            unit = _UNITS.get(row["part"], 1)
            row |= {
                "calls": found.total() / unit,
                "by_call": {name: count / unit for name, count in found.most_common()},
            }
    return rows


def _measured_apart(folder: Path, tracer: list[str], *, tiny: bool) -> list[Row]:
    command = [
        *tracer,
        sys.executable,
        "-m",
        "benchmarks.scale",
        "--measure",
        str(folder),
        *(["--tiny"] if tiny else []),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


def counted(log: Path, folder: str) -> dict[tuple[str, int, int], Counter[str]]:
    """Return the calls that name the folder, by part, number of ranks and rank."""
    found: dict[tuple[str, int, int], Counter[str]] = {}
    current: Counter[str] | None = None
    is_paused = False
    with log.open(errors="replace") as lines:
        for line in lines:
            if match := _MARK.search(line):
                word, _, rest = match[1].partition("/")
                if word in ("pause", "resume"):
                    is_paused = word == "pause"
                    continue
                name, world_size, rank = rest.split("/") if word == "begin" else ("", "0", "0")
                current = found.setdefault((name, int(world_size), int(rank)), Counter()) if name else None
            elif current is not None and not is_paused and folder in line and " resumed>" not in line:
                current[line.split(maxsplit=1)[1].partition("(")[0]] += 1
    return found


def where() -> dict[str, object]:
    """Return what was measured, when and on what."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        "calls_counted_by": "strace" if shutil.which("strace") else "",
    }


def table(rows: list[Row]) -> str:
    """Return the figures as a page has them."""
    lines = ["| part | ranks | rank | calls | seconds | exchanges | bytes |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        calls = f"{row['calls']:.4g}" if "calls" in row else "-"
        figures = [calls, f"{row['seconds']:.3g}", f"{row['exchanges']:.3g}", f"{sum(row['bytes'].values()):.3g}"]
        lines.append("| " + " | ".join([row["part"], str(row["world_size"]), str(row["rank"]), *figures]) + " |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Draw calls and seconds of each part over the number of ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    every = figure.subplots(2, 2)
    for (what, rank), axes in zip(product(("calls", "seconds"), (0, 1)), every.flat, strict=True):
        shown = [row for row in rows if row["rank"] == rank and what in row]
        for name in dict.fromkeys(row["part"] for row in shown):
            points = [(row["world_size"], row[what]) for row in shown if row["part"] == name]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axes.set(title=f"{what} of rank {rank}", xlabel="ranks", xscale="log")
        axes.set_yscale("symlog" if what == "calls" else "log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
