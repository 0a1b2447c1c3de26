"""A fault campaign: a run with injected faults must end with the weights of an undisturbed run.

Faults inside a rank, at exact places (rank.py): SIGKILL, SIGSTOP and exceptions in starts, steps, saves,
commits, evaluations and loads, SIGTERM to all, a full disk (disk.py), a kill while the folder is made, a second
start. Between two starts (damage.py): checkpoint files that are cut, flipped or removed, records of the run that
are damaged, shards that are cut, another number of ranks; a supervisor that is killed (supervisor_faults.py). All are
drawn from one seed.
"""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launch.chaos.damage import damage_history, spoil
from launch.chaos.disk import small_disk
from launch.chaos.rank import Action, Place, Plan
from launch.chaos.ranks import LEFT_BEHIND, attempt
from launch.chaos.supervisor_faults import kill_supervisor
from launch.lifecycle.run_folder import RunFolder
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import complete

HANG_SECONDS = 20.0
"""Less than in a run, since each stopped rank is waited for; a busy machine has held a rank up for 24 s."""
_SAVES = 8
_MOST_FAULTS_A_RUN = 8
_MOST_STARVED = 3
"""More than these are no busy machine but a fault of the product."""
# Each ends an attempt. A kill in a step comes twice, since that is what happens most.
_FATAL: Sequence[tuple[Place, Action]] = (
    ("start", "kill"),
    ("step", "kill"),
    ("step", "kill"),
    ("write", "kill"),
    ("commit", "kill"),
    ("evaluation", "kill"),
    ("load", "kill"),
    ("step", "raise"),
    ("evaluation", "raise"),
    ("step", "stop"),
    ("step", "terminate"),
    ("supervisor", "kill"),
)
_SHARE_OF_FULL_DISKS = 0.3
_SHARE_OF_SECOND_STARTS = 0.2
_SHARE_OF_DAMAGED_HISTORY = 0.4
_SHARE_OF_DAMAGE = 0.8


@dataclass(frozen=True)
class Met:
    """One fault that happened."""

    name: str
    """Place and action, such as "step kill"."""
    run: int
    """Number of the disturbed run."""
    seconds: float
    """The duration of the attempt with the fault."""
    statuses: tuple[int, ...] = ()
    """The exit statuses of the ranks."""
    complaint: str = ""
    """The deviation from the expected end; empty if there was none."""


@dataclass
class Campaign:
    """A campaign in a new folder. `command` is `train CONFIG KEY=VALUE ...`; `shards` are copied: some are cut."""

    command: list[str]
    folder: Path
    shards: Path
    steps: int
    num_ranks: int
    seed: int
    met: list[Met] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)
    equal: set[int] = field(default_factory=set)
    to_come: list[tuple[Place, Action]] = field(default_factory=list)
    """Faults that come before any comes again."""
    starved: int = 0
    """Attempts that the watch over hangs ended although nothing was done to them: the machine gave a rank no time."""
    ballast: Path | None = None
    """The file that fills the disk of the current run; None if the run has no disk of its own."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.own_shards = self.folder / "shards"
        self.overrides = [
            f"data.shards={self.own_shards}",
            f"health.hang_seconds={HANG_SECONDS}",
            # Often enough that faults in files, commits and evaluations are met.
            f"checkpoint.save_every_steps={max(self.steps // _SAVES, 1)}",
            f"train.evaluate_every_steps={max(self.steps // 3, 1)}",
        ]

    def run(
        self, num_faults: int, *, num_resizes: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Meet at least so many faults, and so many changes of the number of ranks; return the report.

        faults, survived (their run finished and every process left as it should), bit_equal (weights and moments of
        their run are those of the undisturbed one); RuntimeError where the run fails by itself.
        """
        started = time.monotonic()
        self.folder.mkdir(parents=True)
        shutil.copytree(self.shards, self.own_shards)
        straight = self.folder / "straight"
        statuses = self._start(straight)
        if any(statuses):
            raise RuntimeError(f"the run fails undisturbed, statuses {statuses}; see {self.folder / 'log'}")
        number = 0
        while len(self.met) < num_faults:
            number += 1
            # The run is a folder on the disk: one that is a disk itself could not be published by a rename.
            disk = self.folder / f"run_{number}"
            with small_disk(disk, straight) as self.ballast:
                self._disturb(disk / "run", number, num_faults, progress)
            if fingerprint(disk / "run") == fingerprint(straight):
                self.equal.add(number)
        self.ballast = None
        differences = [self._resize(self.folder / f"resized_{index}", straight) for index in range(num_resizes)]
        return {
            "faults": len(self.met),
            "survived": sum(map(self._is_survived, self.met)),
            "bit_equal": sum(met.run in self.equal for met in self.met),
            "kinds": dict(Counter(met.name for met in self.met)),
            "starved": self.starved,
            "runs": number,
            "resizes": num_resizes,
            "resized_loss_difference": max(differences, default=0.0),
            "ranks": self.num_ranks,
            "seed": self.seed,
            "seconds": round(time.monotonic() - started, 1),
            "met": [asdict(met) for met in self.met],
        }

    def _is_survived(self, met: Met) -> bool:
        return met.run in self.finished and not met.complaint

    def _disturb(self, folder: Path, number: int, num_faults: int, progress: Callable[[int, int], None] | None) -> None:
        """Start a run over and over, with faults each time, until it has finished."""
        enough = min(num_faults, len(self.met) + _MOST_FAULTS_A_RUN)
        # What can happen to a first start alone comes first: in turns, since a run that is made is made for good.
        fault: tuple[Place, Action] | None = ("make" if number % 2 else "supervisor", "kill")
        while True:
            plans: list[Plan] = []
            if len(self.met) < enough:
                place, action = fault or self._next_fault()
                fault = None
                if place == "supervisor":
                    self._kill_supervisor(folder, number)
                    continue
                plans = self._plans(place, action)
            began = time.monotonic()
            statuses = self._start(folder, plans)
            happened = [plan for plan in plans if Path(plan.met_path).exists()]
            # A planned fault whose place was never reached, say a third save of two, is no fault that was survived.
            for plan in happened:
                name, seconds = f"{plan.place} {plan.action}", round(time.monotonic() - began, 1)
                complaint = _complaint_of_second(plan) or _complaint(happened, statuses)
                self.met.append(Met(name, number, seconds, statuses, complaint))
                Path(plan.met_path).unlink()
            if progress is not None:
                progress(len(self.met), num_faults)
            if not any(statuses):
                self.finished.add(number)
                return
            if not happened and not self._is_starved(folder):
                raise RuntimeError(f"run {number} fails by itself, statuses {statuses}; see {self.folder / 'log'}")
            if len(self.met) < enough and self.random.random() < _SHARE_OF_DAMAGE:
                self._damage(folder, number)

    def _is_starved(self, folder: Path) -> bool:
        """Count an unplanned end in which the watch took a busy machine for a hang; return whether it was one."""
        verdict = RunFolder(folder).watch_folder / "verdict.json"
        self.starved += verdict.exists()
        return verdict.exists() and self.starved <= _MOST_STARVED

    def _kill_supervisor(self, folder: Path, number: int) -> None:
        began = time.monotonic()
        is_met, complaint = kill_supervisor(
            self._arguments(folder), RunFolder(folder), self.num_ranks, self.random.randrange(2), self.folder / "log"
        )
        if is_met or complaint:
            self.met.append(Met("supervisor kill", number, round(time.monotonic() - began, 1), (), complaint))

    def _next_fault(self) -> tuple[Place, Action]:
        """Return what ends an attempt: each of the faults once, in an order of the seed, before one comes again."""
        if not self.to_come:
            # A lone process that is stopped has nobody who could notice.
            possible = [fault for fault in _FATAL if fault[1] != "stop" or self.num_ranks > 1]
            self.to_come = self.random.sample(possible, len(possible))
        return self.to_come.pop()

    def _plans(self, place: Place, action: Action) -> list[Plan]:
        plans = [self._plan(place, action)]
        if place != "make" and self.random.random() < _SHARE_OF_FULL_DISKS:
            plans.append(self._plan("write", "full_disk"))
        # Not where the first may be gone before the second has been refused.
        if place not in ("make", "start", "load") and self.random.random() < _SHARE_OF_SECOND_STARTS:
            plans.append(self._plan("load", "second_start"))
        return plans

    def _plan(self, place: Place, action: Action) -> Plan:
        most = {
            "make": 1,
            "start": 1,
            "step": max(self.steps // 3, 1),
            "write": 4,
            "commit": 2,
            "evaluation": 1,
            "load": 1,
        }[place]
        met_path = self.folder / f"met_{place}_{action}"
        ballast = str(self.ballast or "")
        return Plan(
            place, self.random.randint(1, most), action, self.random.choice((0, 1, 5, 20)), str(met_path), ballast
        )

    def _start(self, folder: Path, plans: Sequence[Plan] = (), num_ranks: int = 0) -> tuple[int, ...]:
        # Only rank 0 makes the folder and commits; any rank meets the rest.
        is_of_first = any(plan.place in ("make", "commit") for plan in plans)
        victim = 0 if is_of_first else self.random.randrange(self.num_ranks)
        statuses = attempt(self._arguments(folder), num_ranks or self.num_ranks, plans, victim, self.folder / "log")
        if self.ballast is not None:
            self.ballast.unlink(missing_ok=True)  # of a rank that was killed while the disk was full
        return statuses

    def _arguments(self, folder: Path) -> list[str]:
        return [*self.command, *self.overrides, "--run", str(folder), "--json"]

    def _damage(self, folder: Path, number: int) -> None:
        """Spoil the run's records, the newest of several checkpoints, or a shard, which is refused while it is cut."""
        if self.random.random() < _SHARE_OF_DAMAGED_HISTORY:
            if done := damage_history(RunFolder(folder), self.random):
                self.met.append(Met(f"bookkeeping: {done}", number, 0.0))
            return
        how = self.random.choice(("flip", "flip", "truncate", "truncate", "remove", "shard"))
        if how == "shard":
            began = time.monotonic()
            # Sorted: the seed must choose the same file on every file system, and each lists a folder in its own order.
            path = self.random.choice(sorted(self.own_shards.rglob("*.tar")))
            content = path.read_bytes()
            path.write_bytes(content[: self.random.randrange(len(content))])
            statuses = self._start(folder)
            path.write_bytes(content)
            complaint = "" if set(statuses) == {2} else f"a cut shard was not refused with status 2: {statuses}"
            self.met.append(Met("shard truncate", number, round(time.monotonic() - began, 1), statuses, complaint))
            return
        checkpoints = complete(RunFolder(folder).checkpoints_folder)
        # The only checkpoint is left alone: without any the run would begin again, which is right but tests nothing.
        if len(checkpoints) > 1:
            spoil(self.random.choice(sorted(checkpoints[-1].iterdir())), how, self.random)
            self.met.append(Met(f"checkpoint {how}", number, 0.0))

    def _resize(self, folder: Path, straight: Path) -> float:
        """Kill a run, let another number of ranks finish it, and return how far its losses are from the straight."""
        self._start(folder, [self._plan("step", "kill")])
        statuses = self._start(folder, num_ranks=2 if self.num_ranks == 1 else self.num_ranks // 2)
        if any(statuses):
            return float("inf")
        # Other ranks sum in another order: close, and not equal in the last bits.
        pairs = zip(_losses(folder), _losses(straight), strict=True)
        return max(abs(found - expected) / abs(expected) for found, expected in pairs)


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the hashes of all files of a run's last checkpoint; nothing if there is none."""
    checkpoints = complete(RunFolder(folder).checkpoints_folder)
    if not checkpoints:
        return {}
    manifest = read_manifest(checkpoints[-1])
    return {name: record.xxh3 for name, record in manifest.files.items()} | {"step": str(manifest.state.step)}


def _losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in RunFolder(folder).metrics_path.read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def _complaint_of_second(plan: Plan) -> str:
    status = Path(plan.met_path).read_text() if plan.action == "second_start" else "2"
    return "" if status == "2" else f"a second start was not refused: {status}"


def _complaint(plans: list[Plan], statuses: tuple[int, ...]) -> str:
    """Return what is wrong with how the ranks left after these faults."""
    actions = {plan.action for plan in plans}
    if LEFT_BEHIND in statuses:
        return "processes were left behind"
    if actions <= {"full_disk", "second_start"}:
        return f"{' and '.join(sorted(actions))} ended the run: {statuses}" if any(statuses) else ""
    if "terminate" in actions:
        return f"SIGTERM did not end in good order: {statuses}" if set(statuses) - {0, 85} else ""
    return "" if all(statuses) else f"a rank left as if nothing had happened: {statuses}"
