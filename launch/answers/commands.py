"""`perceiver predict` and `perceiver embed`: every sample once, by any number of processes, resumed after a kill.

    rank 0       what was typed --> samples in one order --> batches --> parts, each of some batches
    each rank    its share of the parts that are missing --> network --> OUT.unfinished/000012
    rank 0       all parts, in their order --> OUT

A plan beside the parts says what they are of: another command, other weights or other files do not resume them.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.files import atomic, history
from data_shards.files.display import printable
from data_shards.files.quoting import counted
from data_shards.loading.batch import Batch
from data_shards.loading.cuts import Cuts
from data_shards.sources.prediction.new_samples import NewSamples
from launch.answers import request, tables, vectors
from launch.answers.answering import Answering, batch_of, plain, samples_of
from launch.answers.parts import Parts, Progress
from launch.answers.request import Asked, files_folder
from launch.lifecycle.agreement import joined, together
from launch.run.trained.network import config_of, trained
from trainer.distributed.world import World
from trainer.tasks.answer import AnsweredFile, Row

# Of the samples that cannot be read; all of them are in a file.
_SHOWN = 10


def predict(asked: Asked, progress: Progress, *, as_json: bool) -> int:
    """Write the answers for new samples as a table and files; return the exit status. Collective."""
    files = files_folder(asked.out)

    def work(answering: Answering, batches: Sequence[tuple[int, list[Batch]]]) -> bytes:
        rows = (row for number, clips in batches for row in answering.rows(number, clips))
        return b"".join(_line(sample, row, files) for sample, row in rows)

    def join(parts: Sequence[Path], hidden: Path) -> None:
        tables.join(parts, hidden, asked.out.suffix)

    job = _Job("predict", work, join, tables.num_rows)
    return _run(job, asked, {"top": asked.top}, progress, as_json=as_json)


def embed(asked: Asked, progress: Progress, *, as_json: bool) -> int:
    """Write the latents of new samples as one array with their keys; return the exit status. Collective."""

    def work(answering: Answering, batches: Sequence[tuple[int, list[Batch]]]) -> bytes:
        found, keys = [], []
        for number, clips in batches:
            named = clips[0].keys
            # The last batch is filled up with samples that have no key, so that every batch has one shape.
            real = np.array([bool(key) for key in named])
            found.append(answering.latents(clips, whole=asked.whole).numpy()[real])
            keys += [_key(answering.samples, number * len(real) + place, key) for place, key in enumerate(named)]
        return vectors.part(np.concatenate(found), [key for key in keys if key])

    def join(parts: Sequence[Path], hidden: Path) -> None:
        vectors.join(parts, hidden, asked.out)

    job = _Job("embed", work, join, vectors.num_rows)
    return _run(job, asked, {"latents": "whole" if asked.whole else "mean"}, progress, as_json=as_json)


@dataclass(frozen=True)
class _Job:
    """How a command answers, and what becomes of it."""

    name: str
    work: Callable[[Answering, Sequence[tuple[int, list[Batch]]]], bytes]
    """Returns the content of a part from its batches."""
    join: Callable[[Sequence[Path], Path], None]
    count: Callable[[Sequence[Path]], int]
    """Returns how many samples are answered in parts."""


def _run(job: _Job, asked: Asked, options: Mapping[str, str | int], progress: Progress, *, as_json: bool) -> int:
    config = config_of(asked.run)
    world = joined(config.train.collective_timeout_seconds)
    told: list[str] = []
    together(world, lambda: request.check(job.name, asked, config) if world.is_first else None)
    network = together(world, lambda: trained(asked.run, config, asked.checkpoint, world, asked.weights, asked.latents))
    # One rank lists the files, and all have its list: a folder that changes meanwhile would be another one for each.
    found = together(
        world, lambda: samples_of(network, asked.paths, asked.split, told.append) if world.is_first else None
    )
    samples = world.broadcast(found)
    assert samples is not None
    # The batch is part of the plan: parts are made of batches, and a sum in another batch has other last digits.
    batch = min(asked.batch or batch_of(config), samples.num_samples)
    parts = Parts(asked.out, samples.num_samples, batch)
    answering = Answering.of(network, samples, top=asked.top)
    # What must be equal for parts of an interrupted command to be those of this one.
    plan = {
        "command": job.name,
        "run": str(network.folder.path),
        "step": network.step,
        "weights": network.weights_hash,
        "samples": samples.num_samples,
        "of": _identity(samples),
        "batch": batch,
        **options,
    }
    with parts.claimed(world):
        # An attempt may have been killed between the finished table and the removal of its parts: none is missing then.
        is_finished = together(
            world, lambda: parts.open(plan, request.beside(job.name, asked.out)) if world.is_first else False
        )
        _answer(job, parts, answering, world, progress)
        if world.is_first:
            _end(job, parts, answering, request.skipped_path(asked.out), told, as_json=as_json, is_finished=is_finished)
    # An error of the first rank's last work ends all, with one sentence.
    together(world, lambda: None)
    world.close()
    return 0


def _answer(job: _Job, parts: Parts, answering: Answering, world: World, progress: Progress) -> None:
    mine = parts.share(world)
    if world.is_first and 0 < len(parts.missing()) < len(parts.paths):
        history.tell(f"resumes: {len(parts.paths) - len(parts.missing())} of {len(parts.paths)} parts are there")
    # The loader reads ahead over all batches of this rank, across the borders of parts.
    batches = [number for part in mine for number in parts.batches(part)]
    pinned = world.device.type == "cuda"
    loader = answering.samples.loader(parts.batch, batches, parts.skipped_path, pinned=pinned)
    clips, step = answering.samples.clips, {number: step for step, number in enumerate(batches)}

    def work(part: int) -> bytes:
        batches = [(number, clips(loader, step[number])) for number in parts.batches(part)]
        parts.note_cuts(part, Cuts.of(first for _, (first, *_) in batches))
        return job.work(answering, batches)

    with loader:
        parts.answer(world, mine, work, progress)


def _end(
    job: _Job,
    parts: Parts,
    answering: Answering,
    skipped: Path,
    told: Sequence[str],
    *,
    as_json: bool,
    is_finished: bool,
) -> None:
    """Write the result, or refuse where no sample could be read, and tell of it."""
    bad, cuts = _listed(parts.skipped_path), parts.cuts
    num_answered = job.count(parts.paths)
    # Nothing is left behind: the same command with the right files must not be refused for a folder of this one.
    if not num_answered:
        parts.remove()
        raise ValueError(f"0 of {counted(parts.num_samples, 'sample')} can be read: {'; '.join(bad[:_SHOWN])}")
    if is_finished:
        parts.remove()
    else:
        parts.finish(job.join, skipped)
    notes = [*told, *answering.notes, *cuts.sentences(answering.samples.config)]
    num_skipped = parts.num_samples - num_answered
    if as_json:
        result = {"out": str(parts.out), "samples": num_answered, "skipped": bad, "notes": notes}
        sys.stdout.write(json.dumps(result | {"num_skipped": num_skipped, "cut": cuts.as_json()}) + "\n")
        return
    for note in notes:
        sys.stderr.write(printable(f"note: {note}") + "\n")
    sys.stdout.write(printable(f"{counted(num_answered, 'sample')} answered: {parts.out}") + "\n")
    if num_skipped:
        sys.stdout.write(printable(f"{num_skipped} skipped, listed in {skipped}:") + "\n")
        sys.stdout.writelines(printable(f"  {sentence}") + "\n" for sentence in bad[:_SHOWN])
        if bad[_SHOWN:]:
            sys.stdout.write(f"  and {len(bad) - _SHOWN} more\n")


def _listed(path: Path) -> list[str]:
    """Return a sentence on each sample that cannot be read."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    named = [(": ".join(part for part in (row["shard"], row["key"]) if part), row["reason"]) for row in rows]
    return [f"{name}: {reason}" for name, reason in sorted(named)]


def _line(sample: int, row: Row, files: Path) -> bytes:
    cells = {column: _cell(sample, column, cell, files) for column, cell in row.items()}
    return json.dumps(cells, ensure_ascii=False).encode() + b"\n"


def _cell(sample: int, column: str, cell: object, files: Path) -> object:
    if not isinstance(cell, AnsweredFile):
        return plain(cell)  # type: ignore[arg-type]  # what is no file is a cell
    # By number, since a key may hold what a file name may not; written whole, but not synced: a repeat writes it again.
    files.mkdir(exist_ok=True)
    path = files / f"{sample:08d}.{column}.{cell.suffix}"
    atomic.write(path, cell.encode(cell.array), survives_power_cut=False)
    return f"{files.name}/{path.name}"


def _key(samples: NewSamples, number: int, key: str) -> str:
    """Return the key of a sample, with its shard where it is in one; empty for a slot that is none."""
    return "/".join(part for part in (samples.shard_of(number), key) if part) if key else ""


def _identity(samples: NewSamples) -> str:
    """Return a hash of what is answered: shards by their fingerprint, files by name, size and time."""
    # Not of the bytes themselves: a million files would be read twice.
    found = hashlib.sha256()
    for dataset in samples.datasets:
        found.update(f"{dataset.folder} {dataset.split_name} {dataset.split.fingerprint}\n".encode())
    for sample in samples.files:
        found.update(repr((sample.key, sample.fields, sample.fault)).encode())
        for suffix, content in sample.members:
            found.update(f"{suffix} {content.num_bytes} {_time(content.origin)} {content!r}".encode(errors="replace"))
    return found.hexdigest()


def _time(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError):  # what is missing, and what is no path but a text
        return 0
