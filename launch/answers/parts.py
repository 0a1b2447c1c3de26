"""Parts: consecutive samples whose answers are kept at once, so that a command that was killed resumes.

    OUT.unfinished/plan.json     what is answered by which weights; the same command alone resumes it
    OUT.unfinished/000012        the answers of part 12, whole, or not there
    OUT.unfinished/cut.000012    its samples that were cut, by input; there before the answers
    OUT.unfinished/skipped.jsonl samples that cannot be read
    OUT.unfinished/joined        OUT is next: after this it holds all of them

Which samples a part has does not depend on the number of processes. Each missing part is answered by one process.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.files import atomic, typed_json
from data_shards.loading.cuts import Cuts
from launch.lifecycle.agreement import together
from launch.lifecycle.run_folder import making
from trainer.distributed.world import World
from trainer.health.run_lock import RunLock

# A folder with a file for each batch of a million would be slow to list.
_MOST_PARTS = 1_000
Progress = Callable[[int, int], None]
"""A function that is called with (samples done, samples in all)."""


@dataclass(frozen=True)
class Parts:
    """The answers to some samples, as far as they are there."""

    out: Path
    """The file that all of them become."""
    num_samples: int
    batch: int
    """Samples that are answered at once."""

    @property
    def folder(self) -> Path:
        """The folder of what is not finished."""
        return _folder_of(self.out)

    @property
    def _plan_path(self) -> Path:
        return self.folder / "plan.json"

    @property
    def skipped_path(self) -> Path:
        """The list of samples that cannot be read, while others are answered."""
        return self.folder / "skipped.jsonl"

    @property
    def num_batches(self) -> int:
        """Batches of all samples."""
        return -(-self.num_samples // self.batch)

    @property
    def batches_a_part(self) -> int:
        """Batches that are kept at once."""
        return -(-self.num_batches // _MOST_PARTS)

    @property
    def paths(self) -> list[Path]:
        """The file of each part."""
        return [self.folder / f"{number:06d}" for number in range(-(-self.num_batches // self.batches_a_part))]

    def batches(self, part: int) -> range:
        """Return the batches of a part."""
        first = part * self.batches_a_part
        return range(first, min(first + self.batches_a_part, self.num_batches))

    def missing(self) -> list[int]:
        """Return the parts that are not there."""
        return [number for number, path in enumerate(self.paths) if not path.exists()]

    def note_cuts(self, part: int, cuts: Cuts) -> None:
        """Keep how many samples of a part were cut: a command that resumes tells of those of all parts."""
        atomic.write(_cuts_path(self.paths[part]), json.dumps(cuts.counts))

    @property
    def cuts(self) -> Cuts:
        """The samples of all parts that were cut."""
        return Cuts.total(Cuts(json.loads(_cuts_path(path).read_bytes())) for path in self.paths)

    def open(self, plan: dict[str, str | int], others: Sequence[Path]) -> bool:
        """Make the folder, or check that the same was begun in it; return whether OUT is finished already.

        `others` are what is written beside OUT. ValueError where something else has one of the names.
        """
        joined = self.folder / "joined"
        if self._plan_path.is_file():
            before = typed_json.read_object(self._plan_path)
            words = _differences(before, plan)
            if not words:
                # Made by somebody else since: the mark is set just before this command's own file takes the name.
                if self.out.exists() and not joined.exists():
                    raise ValueError(f"{self.out}: is there already; move it away, or choose another --out")
                return self.out.exists()
            if self._has_answers:
                raise ValueError(
                    f"{self.folder}: another command was interrupted there ({'; '.join(words)}); repeat that one, "
                    "remove the folder, or choose another --out"
                )
            # Nothing of the other command is lost: it failed before its first answer.
            self._forget()
        Parts.refuse_taken(self.out, others)
        atomic.write(self._plan_path, json.dumps(plan) + "\n")
        return False

    @property
    def _has_answers(self) -> bool:
        """True if a part is there, written by any command."""
        return any(path.name.isdecimal() for path in self.folder.iterdir())

    def _forget(self) -> None:
        """Remove the plan of a command that answered nothing, and what it listed; the lock in the folder stays."""
        self._plan_path.unlink()
        for path in (self.skipped_path, self.folder / "joined", *self.folder.glob("cut.*")):
            path.unlink(missing_ok=True)

    @staticmethod
    def refuse_taken(out: Path, others: Sequence[Path]) -> None:
        """Raise ValueError where something has the name of what a command is to write, and none was interrupted."""
        if (_folder_of(out) / "plan.json").is_file():
            return  # what is there may be of that command
        for path in (out, *others):
            if path.exists() or path.is_symlink():
                raise ValueError(f"{path}: is there already; move it away, or choose another --out")

    @contextmanager
    def claimed(self, world: World) -> Iterator[None]:
        """Let no other command write the same answers meanwhile. Collective."""
        if not world.is_first:
            together(world, lambda: None)
            yield
            return
        # Also after a start on a host that is gone: a job begins on other nodes. Two at once, on a disk whose locks one
        # host alone sees, write the same bytes.
        lock = RunLock(self.folder / "lock", take_over=True, held="writes the same answers; wait for it")

        def claim() -> None:
            with making(self.folder, "choose another --out"):
                self.folder.mkdir(parents=True, exist_ok=True)
            lock.__enter__()

        # A lock that is held is an error of all ranks.
        together(world, claim)
        try:
            yield
        finally:
            lock.__exit__()
            # Of a command that was refused nothing stays.
            if not self._plan_path.exists():
                atomic.remove(self.folder)

    def answer(self, world: World, mine: Sequence[int], work: Callable[[int], bytes], progress: Progress) -> None:
        """Answer the parts of this rank, one by one with the other ranks. Collective."""
        shares = world.gather(len(mine))
        done = len(self.paths) - sum(shares)
        for place in range(max(shares)):
            together(world, lambda place=place: self._write(mine[place], work) if place < len(mine) else None)  # type: ignore[misc]
            if world.is_first:
                parts = done + sum(min(place + 1, share) for share in shares)
                # The last part may have fewer.
                progress(min(parts * self.batches_a_part * self.batch, self.num_samples), self.num_samples)

    def _write(self, part: int, work: Callable[[int], bytes]) -> None:
        atomic.write(self.folder / f"{part:06d}", work(part))

    def share(self, world: World) -> list[int]:
        """Return the missing parts that this rank answers: consecutive ones, whose samples lie together. Collective."""
        # The first rank looks, and all divide what it saw: another one may see a part a moment later.
        missing = world.broadcast(self.missing() if world.is_first else [])
        first, last = (len(missing) * rank // world.world_size for rank in (world.rank, world.rank + 1))
        return missing[first:last]

    def finish(self, join: Callable[[Sequence[Path], Path], None], skipped: Path) -> None:
        """Make OUT of all parts, and remove what is no more needed."""
        with atomic.beside(self.out) as hidden:
            join(self.paths, hidden)
            if self.skipped_path.exists():
                atomic.write(skipped, self.skipped_path.read_bytes())
            # Before the rename into place: a kill between the two is seen at the next start.
            (self.folder / "joined").touch()
        self.remove()

    def remove(self) -> None:
        """Remove what is not needed once OUT is there."""
        # The plan first: a command that is killed here leaves parts that are nobody's, and not a part of the answers.
        self._plan_path.unlink()
        atomic.remove(self.folder)


def _folder_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.unfinished")


def _differences(before: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """Return what of a command is another than it was, in words."""
    differing = sorted(key for key in plan.keys() | before.keys() if plan.get(key) != before.get(key))
    words = {key: f"{key}: {before.get(key)} then, {plan.get(key)} now" for key in differing}
    if "step" in words:
        # The run has saved since, and the newest checkpoint is another one.
        words["step"] += f": --checkpoint {before.get('step')}"
        words.pop("weights", None)
    elif "weights" in words:
        words["weights"] = "other weights of the same step, or the same name with others in it"
    if "of" in words:
        words["of"] = "other files or shards, or some of them have changed since"
    return list(words.values())


def _cuts_path(part: Path) -> Path:
    return part.with_name(f"cut.{part.name}")
