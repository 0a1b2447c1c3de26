"""What a run of 2 to 1 024 ranks asks of a rank and of the shared disk, by parts: seconds, file-system calls, bytes.

    python -m benchmarks.scale --json benchmarks/results/scale.json --picture docs/pictures/scale.png

One rank is real, all others are made up (see benchmarks/scale/parts.py); files are real, in a temporary folder. All is
done twice: for the seconds, and under strace, which counts the calls that name the folders of the run and the shards.
Without strace no calls are counted. Figures of steps are of one, those of heartbeats of a second, and all others of the
part as a whole. Seconds are of one try, on a disk that nobody shares. The tiny form is done once, under strace, since
nobody reads its seconds.
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
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.scale.parts import NUM_ATTEMPTS, NUM_STEPS, PARTS, make_run, make_shards, measured
from benchmarks.scale.world import RANKS_A_NODE, Cost

Row = dict[str, Any]
_MARK = re.compile(r'"/perceiver-scale/([^"]*)"')
# --seccomp-bpf stops the process at the traced calls alone, not at all of them; -y writes paths beside descriptors, so
# that calls on open files of the folder are found, too.
_TRACER = ("strace", "-f", "-y", "--seccomp-bpf", "-qq", "-e", "trace=%file,%desc", "-e", "signal=none")


@dataclass(frozen=True)
class Extent:
    """The sizes that are measured."""

    world_sizes: tuple[int, ...] = (2, 8, 64, 256, 1024)
    num_shards: int = 100_000
    beat_seconds: float = 4.0
    """How long a rank stands still under the watch."""

    def unit(self, part: str) -> float:
        """Return what the figures of a part are divided by: they are of a step, a second, or of the part as a whole."""
        return {"step": NUM_STEPS, "heartbeat": self.beat_seconds}.get(part, 1)


TINY = Extent((2, 8), 100, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="2 and 8 ranks, 100 shards")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    extent = TINY if arguments.tiny else Extent()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, extent)))
        return
    with tempfile.TemporaryDirectory(prefix="perceiver-scale-") as folder:
        rows = both(Path(folder), extent)
    print(table(rows))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        sizes = {"num_shards": extent.num_shards, "num_attempts": NUM_ATTEMPTS, "ranks_a_node": RANKS_A_NODE}
        arguments.json.write_text(json.dumps({**where(), **sizes, "rows": rows}, indent=1) + "\n")
    if arguments.picture:
        draw(rows, arguments.picture)


def measure(folder: Path, extent: Extent) -> list[Row]:
    """Return the seconds and bytes of each part at each number of ranks, by ranks that stand for all."""
    rows = []
    for world_size in extent.world_sizes:
        run = make_run(folder / f"run{world_size}", folder / "shards")
        for name in PARTS:
            told: list[object] = []
            # The first of all, one beside it, and the first of another node.
            # A person asks for the status, in one process beside the run.
            for rank in (0,) if name == "status" else (0, 1, RANKS_A_NODE)[: 2 + (world_size > RANKS_A_NODE)]:
                cost, said = measured(name, run, rank, world_size, list(told), extent.beat_seconds)
                told = told or said
                rows.append({"part": name, "world_size": world_size, "rank": rank} | row(cost, extent.unit(name)))
    return rows


def row(cost: Cost, unit: float) -> Row:
    """Return what a part costs, by the unit."""
    return {
        "seconds": cost.seconds / unit,
        "cpu_seconds": cost.cpu_seconds / unit,
        "exchanges": cost.exchanges / unit,
        "bytes": {collective: count / unit for collective, count in cost.num_bytes.items()},
    }


def both(folder: Path, extent: Extent) -> list[Row]:
    """Return what was measured, with the calls of a second time under strace."""
    make_shards(folder / "shards", extent.num_shards)
    has_tracer = shutil.which("strace") is not None
    # Seconds without strace, which makes each call many times as slow; calls are counted in a second process.
    rows = [] if has_tracer and extent == TINY else _measured_apart(folder, [], extent)
    if has_tracer:
        for run in folder.glob("run*"):
            shutil.rmtree(run)
        log = folder.with_name(f"{folder.name}.strace")
        try:
            traced = _measured_apart(folder, [*_TRACER, "-o", str(log)], extent)
            calls = counted(log, str(folder))
        finally:
            log.unlink(missing_ok=True)
        rows = rows or traced
        for each in rows:
            found, unit = calls[each["part"], each["world_size"], each["rank"]], extent.unit(each["part"])
            each["calls"] = found.total() / unit
            each["by_call"] = {name: count / unit for name, count in found.most_common()}
    return rows


def _measured_apart(folder: Path, tracer: list[str], extent: Extent) -> list[Row]:
    command = [*tracer, sys.executable, "-m", "benchmarks.scale", "--measure", str(folder)]
    command += ["--tiny"] if extent == TINY else []
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
            # strace writes a call that another thread interrupts in two lines; the first one has its arguments.
            elif current is not None and not is_paused and folder in line and " resumed>" not in line:
                # Before each call strace -f writes the process that makes it.
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
    """Return the figures as a page has them: calls by the number of ranks, all others at the most ranks."""
    world_sizes = sorted({each["world_size"] for each in rows})
    names = ["part", "rank", *(f"calls, {count} ranks" for count in world_sizes)]
    names += ["CPU time, ms", "exchanges", "kB"]
    lines = [names, ["---"] * len(names)]
    by_place = {(each["part"], each["rank"], each["world_size"]): each for each in rows}
    largest = [each for each in rows if each["world_size"] == world_sizes[-1]]
    for part, rank in dict.fromkeys((each["part"], each["rank"]) for each in largest):
        found = [by_place.get((part, rank, world_size), {}) for world_size in world_sizes]
        calls = [_figure(each["calls"]) if "calls" in each else "" for each in found]
        most = found[-1]
        figures = [most["cpu_seconds"] * 1e3, most["exchanges"], sum(most["bytes"].values()) / 1e3]
        lines.append([part, str(rank), *calls, *map(_figure, figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(rows: list[Row], path: Path) -> None:
    """Draw calls and seconds of each part over the number of ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    every = figure.subplots(2, 2)
    for (what, rank), axes in zip(product(("calls", "cpu_seconds"), (0, 1)), every.flat, strict=True):
        shown = [each for each in rows if each["rank"] == rank and what in each]
        for name in dict.fromkeys(each["part"] for each in shown):
            points = [(each["world_size"], each[what]) for each in shown if each["part"] == name]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        title = f"{'file-system calls' if what == 'calls' else 'CPU seconds'} of rank {rank}"
        axes.set(title=title, xlabel="ranks", xscale="log")
        # Some parts make no call at all, and 0 has no logarithm.
        axes.set_yscale("symlog" if what == "calls" else "log")
        if what == "calls":
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    # Beside the lines and not on them; rank 0 has all parts.
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
