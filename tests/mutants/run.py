"""Plant faults in clones, one at a time, and see whether the tests notice: python tests/mutants/run.py --count 300.

A process that has loaded PyTorch forks a child for each fault. The child runs the tests that reach the fault's line,
nearest and quickest first, until one fails; which tests those are is measured first, with coverage.py. What no test
noticed is printed with its line. `equivalent.json` lists faults that change nothing, each with its reason: they do not
count.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType

import coverage
import pytest
from edits import Fault, faults, runs_at_import

PACKAGES = ("data_shards", "model", "trainer", "launch")
REPOSITORY = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.json")
# Interpreted by Triton from its source, where no tracer sees which lines run.
NOT_TRACED = ("model/attention/absorbed/grid_kernel.py",)
# Loaded once, before the forks; none of them knows the project.
NOTICED = ("noticed", "did not end")
WRONG_TYPES = "refused by mypy"
# No exit status of pytest.
NOT_REACHED = 99
_CACHE = type(lru_cache(len))
HEAVY = ("torch", "torch._dynamo", "deepspeed", "numpy", "av", "omegaconf", "matplotlib.pyplot", "typer")


@dataclass(frozen=True)
class Reach:
    """The tests that reach each line, and how long each takes."""

    lines: dict[str, dict[str, list[str]]]
    """Test ids by file and line."""
    seconds: dict[str, float]
    """By test id."""

    def tests(self, file: str, line: int, *, is_at_import: bool) -> list[str]:
        """Return the tests that reach a line, nearest and quickest first.

        What runs at import is seen only in the test that imports it first; it is every test of the file that uses it,
        and those of its own file of tests: who reads a constant of it runs none of its lines.
        """
        by_line = self.lines.get(file, {})
        found = set(by_line.get(str(line), ()))
        if is_at_import or not found:
            found = {test for tests in by_line.values() for test in tests}
        if is_at_import:
            found |= {test for test in self.seconds if _mirrors(test, file)}
        return sorted(found, key=lambda test: (not _mirrors(test, file), self.seconds.get(test, 0.0)))


@dataclass(frozen=True)
class Mutant:
    """A fault in a file."""

    file: str
    fault: Fault
    before: str
    """The lines of the fault as they are."""
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.fault.line} ({self.fault.kind})\n      {self.before}\n   -> {self.after}"


class Timer:
    """A pytest plug-in: a coverage context and a time for every test."""

    def __init__(self, tracer: coverage.Coverage) -> None:
        self.tracer = tracer
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Measure one test."""
        # What an earlier test left in a cache this one would not be seen to reach.
        empty_caches()
        self.tracer.switch_context(item.nodeid)
        started = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = time.perf_counter() - started
        self.tracer.switch_context("")
        return result


def main() -> None:
    """Plant a seeded choice of faults and print the score by package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="faults in all, the same number for each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="+", default=PACKAGES, choices=PACKAGES)
    parser.add_argument("--files", nargs="*", default=[], help="only faults in these files")
    parser.add_argument("--marker", default="not slow and not slurm", help="which tests may notice them")
    parser.add_argument("--tests", nargs="*", default=[], help="only tests in these files and folders may notice them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--seconds",
        type=float,
        default=120.0,
        help="limit of a fault beside three times what its tests take; tests that do not end notice it",
    )
    parser.add_argument("--reach", type=Path, help="keep in this file which tests reach what, or take it from there")
    parser.add_argument("--out", type=Path, help="write all results here, as JSON")
    given = parser.parse_args()
    sys.path[:] = [path for path in sys.path if path not in (str(REPOSITORY), str(Path(__file__).parent))]
    for name in HEAVY:
        __import__(name)
    with clones(given.jobs) as folders:
        reach = measured(folders[0], given.tests, given.marker, given.reach)
        chosen = choose(folders[0], given.packages, given.files, given.count, given.seed)
        results = try_all(chosen, reach, folders, given.seconds)
    report(results)
    if given.out:
        given.out.write_text(
            json.dumps([{**asdict(mutant), "verdict": verdict} for mutant, verdict in results], indent=1)
        )


@contextmanager
def clones(count: int) -> Iterator[list[Path]]:
    """Yield clones of the newest commit, in which files may be changed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"clone{number}" / "main" for number in range(count)]
        for path in paths:
            subprocess.run(["git", "clone", "--quiet", "--shared", REPOSITORY, path], check=True)
            # Real data for the tests stand beside the repository.
            (path.parent / "shared").symlink_to(REPOSITORY.parent / "shared")
        yield paths


def measured(clone: Path, tests: Sequence[str], marker: str, kept: Path | None) -> Reach:
    """Return which tests reach which lines; RuntimeError where a test fails without any fault."""
    if kept is not None and kept.exists():
        return Reach(**json.loads(kept.read_text()))
    path = kept or clone.parent / "reach.json"
    child = Child(lambda: _measure(clone, tests, marker, path), clone, 36_000)
    while not child.is_over():
        wait([child.process.sentinel], timeout=1.0)
    if child.end() != 0:
        raise RuntimeError(
            f"the tests must pass before faults are planted:\n{(clone.parent / 'log').read_text()[-4000:]}"
        )
    return Reach(**json.loads(path.read_text()))


def _measure(clone: Path, tests: Sequence[str], marker: str, path: Path) -> int:
    traces = clone.parent / "traces"
    settings = clone.parent / "coverage.ini"
    packages = "".join(f"\n  {clone.resolve() / package}" for package in PACKAGES)
    # Processes that the tests start measure themselves; they inherit the name of the test in the environment.
    settings.write_text(
        f"[run]\nsource = {packages}\nparallel = true\ndata_file = {traces}/trace\nsigterm = true\npatch = _exit\n"
        "context = ${PYTEST_CURRENT_TEST-}\n"
    )
    traces.mkdir()
    os.environ["COVERAGE_PROCESS_START"] = str(settings)
    tracer = coverage.Coverage(config_file=str(settings))
    timer = Timer(tracer)
    tracer.start()
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-m", marker, *tests], plugins=[timer])
    tracer.stop()
    tracer.save()
    path.write_text(json.dumps({"lines": _reached(traces, clone.resolve()), "seconds": timer.seconds}))
    return int(status)


def empty_caches() -> None:
    """Empty the caches of all functions of the packages that are loaded."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            for value in vars(module).values():
                if isinstance(value, _CACHE):
                    value.cache_clear()


def _reached(traces: Path, clone: Path) -> dict[str, dict[int, list[str]]]:
    """Return the ids of the tests by line and file, from what every process measured."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for trace in traces.iterdir():
        data = coverage.CoverageData(str(trace))
        data.read()
        for file in data.measured_files():
            lines = found[Path(file).relative_to(clone).as_posix()]
            for line, contexts in data.contexts_by_lineno(file).items():
                lines[line] |= {id_of(context) for context in contexts} - {""}
    return {file: {line: sorted(tests) for line, tests in lines.items()} for file, lines in found.items()}


def id_of(context: str) -> str:
    """Return the id of the test that a line's context names; a parameter in it may have brackets of its own."""
    # Of a process: "tests/test_a.py::test_b (call)", perhaps with the dynamic context behind a bar.
    return re.sub(r" \((setup|call|teardown)\)(\|.*)?$", "", context)


def choose(clone: Path, packages: Sequence[str], files: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Return the faults to plant: as many of each package, drawn with the seed, without the equivalent ones."""
    equivalent = {(known["file"], known["before"], known["after"]) for known in json.loads(EQUIVALENT.read_text())}
    chosen: list[Mutant] = []
    for package in packages:
        all_of_it = [
            mutant
            for path in sorted((clone / package).rglob("*.py"))
            if (name := path.relative_to(clone).as_posix()) not in NOT_TRACED and (not files or name in files)
            for mutant in mutants(name, path.read_bytes())
            if (mutant.file, mutant.before, mutant.after) not in equivalent
        ]
        wanted = min(len(all_of_it), -(-count // len(packages)))
        chosen += random.Random(f"{seed} {package}").sample(all_of_it, wanted)
    return chosen


def mutants(file: str, source: bytes) -> Iterator[Mutant]:
    """Yield every fault of a file that is still Python."""
    for fault in faults(source):
        try:
            compile(fault.planted(source), file, "exec")
        except SyntaxError:
            continue
        yield mutant_of(file, source, fault)


def mutant_of(file: str, source: bytes, fault: Fault) -> Mutant:
    """Return a fault of a file with its lines before and after."""
    text = fault.planted(source)
    first = source.rfind(b"\n", 0, fault.start) + 1
    rest = len(source) - (source + b"\n").find(b"\n", fault.stop)
    before, after = (_one_line(part[first : len(part) - rest]) for part in (source, text))
    return Mutant(file, fault, before, after)


def try_all(
    chosen: Sequence[Mutant], reach: Reach, folders: Sequence[Path], seconds: float
) -> list[tuple[Mutant, str]]:
    """Return what became of each fault; each clone holds one at a time."""
    results = []
    waiting, free, trials = list(reversed(chosen)), list(folders), list[Trial]()
    while waiting or trials:
        while waiting and free:
            trials.append(Trial(waiting.pop(), reach, free.pop(), seconds))
        wait([trial.child.process.sentinel for trial in trials], timeout=1.0)
        for trial in [trial for trial in trials if trial.child.is_over()]:
            trials.remove(trial)
            free.append(trial.clone)
            verdict = trial.verdict()
            results.append((trial.mutant, verdict))
            if verdict in ("SURVIVES", "NOT REACHED"):
                sys.stdout.write(f"{verdict}: {trial.mutant}\n")
                sys.stdout.flush()
    return results


class Trial:
    """A fault that is planted while the tests that reach it run."""

    def __init__(self, mutant: Mutant, reach: Reach, clone: Path, seconds: float) -> None:
        self.mutant, self.clone = mutant, clone
        self._path = clone / mutant.file
        self._source = self._path.read_bytes()
        self._path.write_bytes(mutant.fault.planted(self._source))
        is_at_import = runs_at_import(self._source, mutant.fault.line)
        tests = reach.tests(mutant.file, mutant.fault.line, is_at_import=is_at_import)
        # Many tests take long without a fault, too; only far longer than that is a test that does not end.
        usual = sum(reach.seconds.get(test, 0.0) for test in tests)
        self.child = Child(lambda: _notices(tests) if tests else NOT_REACHED, clone, seconds + 3 * usual)

    def verdict(self) -> str:
        """End the tests, put the file back and return what came out."""
        status = self.child.end()
        verdict = {None: "did not end", 0: "SURVIVES", NOT_REACHED: "NOT REACHED"}.get(status, "noticed")
        if verdict not in NOTICED and not self._has_types():
            verdict = WRONG_TYPES
        self._path.write_bytes(self._source)
        return verdict

    def _has_types(self) -> bool:
        """Return whether mypy, which every commit must pass, lets the fault through."""
        command = [sys.executable, "-m", "mypy", "--no-error-summary", self.mutant.file]
        return subprocess.run(command, cwd=self.clone, capture_output=True, check=False).returncode == 0


def _notices(tests: Sequence[str]) -> int:
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--timeout", "60", *tests]))


class Child:
    """Work in a forked process with a working directory and a time limit; what it prints goes to ../log."""

    def __init__(self, work: Callable[[], int], folder: Path, seconds: float) -> None:
        self.process = multiprocessing.get_context("fork").Process(target=_child, args=(work, folder))
        self.process.start()
        self._ends_by = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Return whether the work is done, or its time is up."""
        return self.process.exitcode is not None or time.monotonic() > self._ends_by

    def end(self) -> int | None:
        """Return its exit status, None if its time was up; nothing that it started outlives this."""
        status = self.process.exitcode
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        return status


def _child(work: Callable[[], int], folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    log = os.open("../log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.environ.update(PYTHONPATH=str(folder), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    # Processes that the tests spawn must not find this script in it.
    sys.modules["__main__"] = ModuleType("__main__")
    os._exit(work())


def report(results: Sequence[tuple[Mutant, str]]) -> None:
    """Print the score by package."""
    for package in PACKAGES:
        counts = Counter(verdict for mutant, verdict in results if mutant.file.startswith(f"{package}/"))
        total = counts.total() - counts[WRONG_TYPES]
        if total:
            found = sum(counts[verdict] for verdict in NOTICED)
            sys.stdout.write(
                f"{package:12} {found} of {total} noticed ({found / total:.0%}), "
                f"{counts['did not end']} of them by tests that did not end; "
                f"{counts['NOT REACHED']} on lines that no test reaches, "
                f"{counts[WRONG_TYPES]} not counted since mypy refuses them\n"
            )


def _mirrors(test: str, file: str) -> bool:
    """Return whether a test is in the file of tests named like a file, in any folder of the same package."""
    tests, own = Path(test.partition("::")[0]), Path(file)
    return tests.parts[:2] == ("tests", own.parts[0]) and tests.name == f"test_{own.name}"


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())


if __name__ == "__main__":
    main()
