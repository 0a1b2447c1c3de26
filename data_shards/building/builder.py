"""Rows to a shard folder: in parallel, resumable, the manifest last.

OUT/.build/plan                 fingerprint of the build that was begun here
OUT/.build/train-000000.json    outcome of a finished shard, until the manifest holds it
OUT/train/000000.tar  .idx      the shard
OUT/manifest.json               all of it is there; written before the outcomes go, or a killed build would begin again
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

from data_shards.building import row_checks, worker_processes
from data_shards.building.build_claim import claimed
from data_shards.building.raw_sample import Row
from data_shards.building.shard_assignment import Plan, ShardPlan, plan
from data_shards.building.shard_writer import Fault, Written, write_shard, written_beside
from data_shards.building.splits import TEST, all_labels, refuse_share, with_test_share
from data_shards.files import history, typed_json
from data_shards.files.quoting import counted, cut
from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.format.tar_index import TarIndex

Progress = Callable[[int, int], None]
"""A function that is called with (samples done, samples in all)."""
Tell = Callable[[str], None]
"""A function that is called with a sentence that a person should see, such as what was skipped."""

FAULTS_SHOWN = 10


class BuildOptions(TypedDict, total=False):
    """The options that every source passes to build_table, which documents them."""

    seed: int
    samples_per_shard: int
    max_bad: int
    num_jobs: int
    progress: Progress | None
    tell: Tell | None
    test_share: float


@dataclass(frozen=True)
class Outcome:
    """The result of one planned shard."""

    entry: ShardEntry
    label_counts: dict[int, int]
    faults: tuple[Fault, ...]
    num_rows: int


def build_table(
    rows: Sequence[Row],
    out: Path,
    *,
    label_names: Sequence[str] = (),
    named_labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
    seed: int = 0,
    samples_per_shard: int = 1000,
    max_bad: int = 0,
    num_jobs: int = 1,
    progress: Progress | None = None,
    tell: Tell | None = None,
    test_share: float = 0.0,
) -> Manifest:
    """Write the rows as shards and return their manifest. The same call after an interrupt resumes the build.

    A `test_share` of each class becomes the split test, where there is train alone. A row that cannot be read or
    decoded is left out and counted. Raises ValueError for labels outside `label_names` or the classes of
    `named_labels`, classes without a sample, more than `max_bad` faults, or a folder that holds something else or
    refuses writing.
    """
    refuse_share(test_share)
    if test_share:
        rows = with_test_share(rows, test_share, seed)
        if tell:
            tell(f"set aside for the split test: {sum(row.split == TEST for row in rows)} of {len(rows)} samples")
    # Before the claim: a table that is refused leaves no folder behind.
    row_checks.check(rows, label_names, named_labels)
    num_values = row_checks.num_values(rows)
    build = plan(rows, seed=seed, samples_per_shard=samples_per_shard)
    with claimed(out, build.fingerprint):
        # Finished by an earlier call: the claim has compared its fingerprint with this one.
        if (out / "manifest.json").is_file():
            return manifest.read(out)
        outcomes = _outcomes(build, out, max_bad, num_jobs, progress)
        faults = [fault for outcome in outcomes.values() for fault in outcome.faults]
        if tell and faults:
            tell(f"left out, {counted(len(faults), 'bad sample')}:{_lines(faults)}")
        complete = replace(_manifest(build, outcomes, label_names, named_labels), values=num_values)
        if not any(split.num_samples for split in complete.splits.values()):
            raise ValueError(f"no sample is left of {len(rows)}:{_lines(faults)}")
        # Once more, of what was written: the bad rows may have been all that a class had.
        row_checks.refuse_empty_classes(
            {name: split.label_counts for name, split in complete.splits.items()}, label_names
        )
        manifest.write(complete, out)
        _clean(out)
        return complete


def _outcomes(build: Plan, out: Path, max_bad: int, num_jobs: int, progress: Progress | None) -> dict[str, Outcome]:
    """Return what became of every shard, those of an interrupted build included."""
    total = sum(len(shard.rows) for shard in build.shards)
    outcomes: dict[str, Outcome] = {}
    done = 0
    for outcome in _each(build.shards, out, num_jobs):
        outcomes[outcome.entry.name] = outcome
        done += outcome.num_rows
        if progress is not None:
            progress(done, total)
        # After each shard and not at the end: what is refused must not decode the rest of the data first.
        _refuse_faults([fault for each in outcomes.values() for fault in each.faults], max_bad)
    return outcomes


def _each(shards: Sequence[ShardPlan], out: Path, num_jobs: int) -> Iterator[Outcome]:
    """Yield the outcomes as the shards are finished."""
    missing = []
    for shard in shards:
        finished = _finished(shard, out)
        if finished is None:
            missing.append(shard)
        else:
            yield finished
    # A process imports all libraries anew, which a single shard does not repay.
    if num_jobs <= 1 or len(missing) <= 1:
        yield from (_build_shard(shard, out) for shard in missing)
        return
    with worker_processes.start(min(num_jobs, len(missing))) as pool:
        try:
            yield from _results(pool, missing, out)
        except BrokenProcessPool as error:
            raise ValueError(
                f"{out}: a building process was killed, perhaps because memory ran out; run the same command "
                "with fewer jobs: finished shards are kept"
            ) from error
        finally:
            # Waits for the shards under way: nobody may still write here when the claim is given back.
            pool.shutdown(wait=True, cancel_futures=True)


def _results(pool: Executor, shards: Sequence[ShardPlan], out: Path) -> Iterator[Outcome]:
    futures: list[Future[Outcome]] = [pool.submit(_build_shard, shard, out) for shard in shards]
    # As they end, not in their order: the first shard that fails ends the build.
    for future in as_completed(futures):
        yield future.result()


def _note(shard: ShardPlan, out: Path) -> Path:
    return out / ".build" / shard.name.replace("/", "-").replace(".tar", ".json")


def _finished(shard: ShardPlan, out: Path) -> Outcome | None:
    """Return the outcome of a shard that an earlier call finished; it is noted after the shard has its name."""
    note = _note(shard, out)
    if not note.is_file():
        return None
    try:
        outcome = _noted(typed_json.read_object(note))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        history.tell(f"{note}: no note of a finished shard ({cut(repr(error))}); {shard.name} is built again")
        return None
    # Taken away since: it had its name before it was noted. A shard without samples has no file.
    if outcome.entry.num_samples and not (out / shard.name).is_file():
        return None
    return outcome


def _noted(fields: Mapping[str, Any]) -> Outcome:
    return Outcome(
        entry=typed_json.typed(ShardEntry, fields["entry"]),
        label_counts={int(label): int(count) for label, count in fields["label_counts"].items()},
        faults=tuple(typed_json.typed(Fault, fault) for fault in fields["faults"]),
        num_rows=int(fields["num_rows"]),
    )


def _build_shard(shard: ShardPlan, out: Path) -> Outcome:
    path = out / shard.name
    written, faults = write_shard(shard.rows, path)
    labels = Counter(label for each in written for label in all_labels(each.row))
    outcome = Outcome(_entry(shard.name, written, path), dict(labels), tuple(faults), len(shard.rows))
    # Last: the note stands for tar and index, both of which are on the disk by now.
    with written_beside(_note(shard, out)) as file:
        file.write(json.dumps(asdict(outcome)).encode())
    return outcome


def _entry(name: str, written: Sequence[Written], path: Path) -> ShardEntry:
    if not written:
        # Every row was bad. An empty tar is taken for a truncated one by readers.
        path.unlink()
        return ShardEntry(name, 0, 0, "", "", {})
    index_path = path.with_suffix(".idx")
    with written_beside(index_path) as file:
        # Of the tar as it lies on the disk, and not of what was meant to be in it.
        file.write(TarIndex.from_tar(path).to_bytes())
    return ShardEntry(
        name=name,
        num_samples=len(written),
        num_bytes=path.stat().st_size,
        sha256=_sha256(path),
        index_sha256=_sha256(index_path),
        kinds=dict(sorted(Counter(each.kind for each in written).items())),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_faults(faults: Sequence[Fault], max_bad: int) -> None:
    if len(faults) > max_bad:
        remedy = f"correct them, or allow this many to be dropped with --max-bad {len(faults)}"
        raise ValueError(f"{counted(len(faults), 'bad sample')}, at most {max_bad} allowed; {remedy}:{_lines(faults)}")


def _lines(faults: Sequence[Fault]) -> str:
    """Return a line for each of the first faults, in the order of the table."""
    shown = [f"line {fault.line}: {fault.reason}" for fault in sorted(faults, key=lambda fault: fault.line)]
    more = [f"and {len(shown) - FAULTS_SHOWN} more"] if len(shown) > FAULTS_SHOWN else []
    return "".join(f"\n  {line}" for line in [*shown[:FAULTS_SHOWN], *more])


def _manifest(
    build: Plan,
    outcomes: dict[str, Outcome],
    label_names: Sequence[str],
    named_labels: Mapping[str, Sequence[str]],
) -> Manifest:
    of_split: dict[str, list[Outcome]] = {}
    # Not as they were finished: the manifest is the same, byte for byte, with any number of jobs.
    for shard in build.shards:
        of_split.setdefault(shard.name.split("/")[0], []).append(outcomes[shard.name])
    splits = {
        name: Split(
            shards=Shards.of(outcome.entry for outcome in parts if outcome.entry.num_samples),
            label_counts=tuple(
                sum(outcome.label_counts.get(label, 0) for outcome in parts) for label in range(len(label_names))
            ),
        )
        for name, parts in of_split.items()
    }
    return Manifest(splits, tuple(label_names), {name: tuple(classes) for name, classes in named_labels.items()})


def _clean(out: Path) -> None:
    """Remove what interrupted builds left beside the shards, and the outcomes that the manifest now holds."""
    for leftover in [*out.glob("*/.*.tar.*"), *out.glob("*/.*.idx.*"), *(out / ".build").glob("*.json")]:
        leftover.unlink()
