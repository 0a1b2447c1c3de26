"""`perceiver submit`, `resume` and `sweep`: everything is checked and written before the job is submitted.

What the queue would only have delayed is refused here, before anything is written:

    plan --> the script, not sent --> refuse a finished or taken run --> make the run's folder --> submit
    memory, disk, batch, shards                                          open_run checks data and network
"""

import itertools
import json
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from configs.plugins import trust
from configs.run import RunConfig, load
from data_shards.files.quoting import cut
from launch.lifecycle import attempts, cluster
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_end import has_ended
from launch.lifecycle.run_folder import RunFolder, as_typed, existing
from launch.planning import plan
from launch.planning.plan import Plan
from launch.run.creation import open_run
from launch.run.loaders import absolute
from launch.schedulers import submission
from launch.slurm import inherited
from trainer.checkpoint.manifest import newest_whole
from trainer.checkpoint.names import step_of
from trainer.engine import deepspeed_settings
from trainer.engine.arithmetic import resolved


def submit(config: RunConfig, path: Path, profile: ClusterConfig, *, dry_run: bool, as_json: bool = False) -> int:
    """Make the run and submit it, or with `dry_run` show what would be submitted; return the exit status."""
    config, folder = absolute(config), RunFolder(path.resolve())
    planned = plan.make(config, profile, folder)
    # Before anything is made: it is refused where the profile or the path cannot be written into it.
    [script] = _preview([folder], profile)
    if dry_run:
        return _show(config, profile, script, planned, as_json=as_json)
    _refuse_finished(folder, config)
    submission.refuse_if_taken(folder)
    open_run(config, folder, profile.world_size, plan.device_type(profile))
    return _send([folder], profile, planned, as_json=as_json)


def resume(
    path: Path,
    profile_name: str | None,
    changes: dict[str, int],
    overrides: Sequence[str] = (),
    *,
    as_json: bool = False,
) -> int:
    """Submit a run again from its newest checkpoint, perhaps on other nodes, watched or fed in another way.

    Returns the exit status.
    """
    folder = existing(RunFolder(path.resolve()))
    if profile_name is None and not folder.cluster_path.is_file():
        raise ValueError(f"{folder.path}: was never submitted; name a profile with --cluster")
    profile = cluster.load(profile_name or str(folder.cluster_path), **changes)
    # Who resumes a run has its code executed on the cluster anyway.
    trust(folder.path)
    config = absolute(load(folder.config_path, overrides))
    _refuse_finished(folder, config)
    planned = plan.make(config, profile, folder)
    # Without changes the run is as it was made, and `send` refuses one that is taken.
    if overrides:
        submission.refuse_if_taken(folder)
        open_run(config, folder, profile.world_size, plan.device_type(profile))
    return _send([folder], profile, planned, as_json=as_json)


def sweep(
    config_path: Path,
    assignments: Sequence[str],
    path: Path,
    profile: ClusterConfig,
    *,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Submit job arrays with a run for every combination of the values; return the exit status."""
    runs = sweep_runs(config_path, assignments, path)
    for config, folder in runs:
        planned = plan.make(config, profile, folder)
        _preview([folder], profile)
    if dry_run:
        return _show_sweep(runs, profile, planned, as_json=as_json)
    going_on = [(config, folder) for config, folder in runs if not is_finished(folder, config)]
    if len(going_on) < len(runs):
        sys.stderr.write(f"note: {len(runs) - len(going_on)} of {len(runs)} runs are finished and not submitted\n")
    # All runs are checked before the first is made: a sweep is submitted as a whole.
    for _, folder in going_on:
        submission.refuse_if_taken(folder)
    for config, folder in going_on:
        open_run(config, folder, profile.world_size, plan.device_type(profile))
    return _send([folder for _, folder in going_on], profile, planned, as_json=as_json) if going_on else 0


def sweep_runs(config_path: Path, assignments: Sequence[str], path: Path) -> list[tuple[RunConfig, RunFolder]]:
    """Return the configuration and the folder of each run of a sweep; ValueError where two would share a folder."""
    runs: dict[str, RunConfig] = {}
    for chosen in combinations(assignments):
        name = name_of(chosen, assignments)
        if name in runs:
            raise ValueError(f"two runs of the sweep would be called {name}; leave out the value that is there twice")
        runs[name] = absolute(load(config_path, chosen))
    return [(config, RunFolder(path.resolve() / name)) for name, config in runs.items()]


def is_finished(folder: RunFolder, config: RunConfig) -> bool:
    """Return whether the run in a folder has made its last step."""
    ends = {"steps": config.train.steps, "patience": config.train.patience}
    if not folder.exists or not has_ended(folder, attempts.newest_step(folder), **ends):
        return False
    # A last checkpoint that is damaged is none: the run makes its last steps again.
    whole, _ = newest_whole(folder.checkpoints_folder)
    return whole is not None and has_ended(folder, step_of(whole), **ends)


def _refuse_finished(folder: RunFolder, config: RunConfig) -> None:
    if is_finished(folder, config):
        step, run = attempts.newest_step(folder), shlex.quote(as_typed(folder.path))
        raise ValueError(
            f"{folder.path}: is finished at step {step}; to train on from there make another run: "
            f"perceiver fork {run} NEW train.steps={2 * step}"
        )


def combinations(assignments: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides of each run: of `a=1,2 b=3` they are [a=1, b=3] and [a=2, b=3]."""
    choices = []
    for assignment in assignments:
        key, equals, values = assignment.partition("=")
        if not equals or not key:
            raise ValueError(f"{cut(assignment)}: expected key=value,value such as optimizer.learning_rate=1e-3,2e-3")
        choices.append([f"{key}={value}" for value in _values(values)])
    yield from (list(chosen) for chosen in itertools.product(*choices))


def _values(text: str) -> list[str]:
    # A list such as [1,2] is one value.
    return [text] if text.startswith(("[", "{")) else text.split(",")


def name_of(chosen: Sequence[str], assignments: Sequence[str]) -> str:
    """Return the folder name of a run of a sweep: what varies between the runs, such as learning_rate=1e-3."""
    varied = [part for part, assignment in zip(chosen, assignments, strict=True) if part != assignment]
    name = "_".join(part.partition("=")[0].rpartition(".")[2] + "=" + part.partition("=")[2] for part in varied)
    # A value may be a path; its slashes would be folders.
    return name.replace("/", "_") or "run"


def _send(folders: list[RunFolder], profile: ClusterConfig, planned: Plan, *, as_json: bool) -> int:
    sent = submission.send(folders, profile)
    if as_json:
        rows = [{"run": str(folder.path), "job_id": each.job_id} for folder, each in zip(folders, sent, strict=True)]
        sys.stdout.write(json.dumps(rows[0] if len(rows) == 1 else rows) + "\n")
        return 0
    for sentence in planned.sentences():
        sys.stdout.write(f"  {sentence}\n")
    names = " ".join(shlex.quote(as_typed(folder.path)) for folder in folders)
    if len(folders) > 1:
        names = shlex.quote(as_typed(folders[0].path.parent))
        jobs = sorted({each.job_id.partition("_")[0] for each in sent})
        sys.stdout.write(f"submitted {len(sent)} runs as the tasks of job {', '.join(jobs)}\n")
    else:
        sys.stdout.write(f"submitted job {sent[0].job_id}\n")
    sys.stdout.write(f"next: perceiver status --watch {names}\n")
    if len(folders) == 1:
        sys.stdout.write(f"      perceiver logs -f {names}\n      perceiver stop {names}\n")
    return 0


def _preview(folders: Sequence[RunFolder], profile: ClusterConfig) -> list[str]:
    scheduler = submission.SCHEDULERS[profile.scheduler]
    return scheduler.preview(folders, profile, job_name=submission.job_name(folders[0]))


def _show_sweep(
    runs: Sequence[tuple[RunConfig, RunFolder]], profile: ClusterConfig, planned: Plan, *, as_json: bool
) -> int:
    """Print what a sweep would submit."""
    sys.stderr.write(inherited.sentence())
    folders = [folder for _, folder in runs]
    scripts = _preview(folders, profile)
    if as_json:
        content = {"runs": [str(folder.path) for folder in folders], "plan": asdict(planned), "scripts": scripts}
        sys.stdout.write(json.dumps(content) + "\n")
        return 0
    for sentence in [*planned.sentences(), *(as_typed(folder.path) for folder in folders)]:
        sys.stdout.write(f"# {sentence}\n")
    sys.stdout.write("\n".join(scripts) + "\n")
    return 0


def _show(config: RunConfig, profile: ClusterConfig, script: str, planned: Plan, *, as_json: bool) -> int:
    sys.stderr.write(inherited.sentence())
    # As the job computes them, whatever this machine has.
    device_type = plan.device_type(profile)
    settings = deepspeed_settings.settings(
        config.optimizer,
        resolved(config.train, device_type),
        num_micro_batches=planned.micro_batches,
        world_size=planned.world_size,
        device_type=device_type,
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
