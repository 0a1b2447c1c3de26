"""`perceiver submit`, `resume` and `sweep`: everything is checked, made and written down, then the queue gets it."""

import itertools
import json
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from configs.run import RunConfig, load
from launch import cluster, inherited, plan, slurm, submission
from launch.cluster import ClusterConfig
from launch.folder import RunFolder, as_typed, existing
from launch.loaders import absolute
from launch.open_run import open_run
from launch.plan import Plan
from trainer import deepspeed_settings


def submit(config: RunConfig, path: Path, profile: ClusterConfig, *, dry_run: bool, as_json: bool = False) -> int:
    """Make the run and submit it, or with `dry_run` show what would be submitted; return the exit status."""
    config, folder = absolute(config), RunFolder(path.resolve())
    planned = plan.make(config, profile, folder)
    # Before anything is made: it is refused where the profile or the path cannot be written into it.
    script = slurm.script([folder], profile, job_name=submission.job_name(folder))
    if dry_run:
        return _show(config, script, planned, as_json=as_json)
    open_run(config, folder)
    return _send([folder], profile, planned, as_json=as_json)


def resume(path: Path, profile_name: str | None, changes: dict[str, int], *, as_json: bool = False) -> int:
    """Submit a run again, from its newest checkpoint, perhaps on another number of nodes; return the exit status."""
    folder = existing(RunFolder(path.resolve()))
    if profile_name is None and not folder.cluster_path.is_file():
        raise ValueError(f"{folder.path}: was never submitted; name a profile with --cluster")
    profile = cluster.load(profile_name or str(folder.cluster_path), **changes)
    planned = plan.make(load(folder.config_path), profile, folder)
    return _send([folder], profile, planned, as_json=as_json)


def sweep(
    config_path: Path, assignments: Sequence[str], path: Path, profile: ClusterConfig, *, as_json: bool = False
) -> int:
    """Submit a job array with a run for every combination of the values; return the exit status."""
    runs = []
    for chosen in combinations(assignments):
        config, folder = absolute(load(config_path, chosen)), RunFolder(path.resolve() / name_of(chosen, assignments))
        planned = plan.make(config, profile, folder)
        submission.refuse_if_queued(folder)
        runs.append((config, folder))
    for config, folder in runs:
        open_run(config, folder)
    return _send([folder for _, folder in runs], profile, planned, as_json=as_json)


def combinations(assignments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides of each run: of `a=1,2 b=3` they are [a=1, b=3] and [a=2, b=3]."""
    choices = []
    for assignment in assignments:
        key, equals, values = assignment.partition("=")
        if not equals or not key:
            raise ValueError(f"{assignment}: expected key=value,value such as optimizer.learning_rate=1e-3,2e-3")
        choices.append([f"{key}={value}" for value in _values(values)])
    yield from (list(chosen) for chosen in itertools.product(*choices))


def _values(text: str) -> list[str]:
    # A list such as [1,2] is one value.
    return [text] if text.startswith(("[", "{")) else text.split(",")


def name_of(chosen: Sequence[str], assignments: Sequence[str]) -> str:
    """Return the folder name of a run of a sweep: what varies between the runs, such as learning_rate=1e-3."""
    varied = [part for part, assignment in zip(chosen, assignments, strict=True) if part != assignment]
    return (
        "_".join(part.partition("=")[0].rpartition(".")[2] + "=" + part.partition("=")[2] for part in varied) or "run"
    )


def _send(folders: list[RunFolder], profile: ClusterConfig, planned: Plan, *, as_json: bool) -> int:
    sys.stderr.write(inherited.sentence())
    sent = submission.send(folders, profile)
    if as_json:
        rows = [{"run": str(folder.path), "job_id": each.job_id} for folder, each in zip(folders, sent, strict=True)]
        sys.stdout.write(json.dumps(rows[0] if len(rows) == 1 else rows) + "\n")
        return 0
    for sentence in planned.sentences():
        sys.stdout.write(f"  {sentence}\n")
    names = " ".join(shlex.quote(as_typed(folder.path)) for folder in folders)
    sys.stdout.write(f"submitted job {sent[0].job_id}{' and its array' if len(sent) > 1 else ''}\n")
    sys.stdout.write(f"next: perceiver status --watch {names}\n")
    if len(folders) == 1:
        sys.stdout.write(f"      perceiver logs -f {names}\n      perceiver stop {names}\n")
    return 0


def _show(config: RunConfig, script: str, planned: Plan, *, as_json: bool) -> int:
    sys.stderr.write(inherited.sentence())
    settings = deepspeed_settings.settings(
        config.optimizer, config.train, num_micro_batches=planned.micro_batches, world_size=planned.world_size
    )
    if as_json:
        content = {"plan": asdict(planned), "script": script, "deepspeed": settings}
        sys.stdout.write(json.dumps(content) + "\n")
        return 0
    for sentence in planned.sentences():
        sys.stdout.write(f"# {sentence}\n")
    # All but the script is a comment of the shell.
    sys.stdout.write(script + "\n" + textwrap.indent(f"DeepSpeed: {json.dumps(settings, indent=1)}\n", "# "))
    return 0
