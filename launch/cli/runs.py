"""The commands of a run's life: submit, resume, sweep, status, logs, stop, cancel, fork, diff, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from launch.cli.console import AsJson, Checkpoint, TrustCode

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="Run folder.")]
RunOrSweep = Annotated[Path, typer.Argument(help="Run folder, or that of a sweep.")]
Config = Annotated[Path, typer.Argument(help="YAML file of the run, such as configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as train.steps=1000.")]
RunOption = Annotated[Path, typer.Option("--run", help="Run folder.")]
Cluster = Annotated[str, typer.Option("--cluster", help="Profile: a YAML file, or a name in configs/clusters.")]
SameCluster = Annotated[
    str | None, typer.Option("--cluster", help="Profile; that of the last submission if not given.")
]
Nodes = Annotated[int, typer.Option("--nodes", min=0, help="Nodes; 0 for the profile's number.")]
Minutes = Annotated[int, typer.Option("--minutes", min=0, help="Time limit of an attempt; 0 for the profile's.")]


@app.command()
def submit(
    config: Config,
    overrides: Overrides = None,
    *,
    run: RunOption,
    cluster: Cluster,
    nodes: Nodes = 0,
    minutes: Minutes = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script and submit nothing.")] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Check a run, freeze its code and configuration, and hand it to Slurm.

    Example: perceiver submit configs/digits.yaml data.shards=data/digits --run runs/digits --cluster plain --nodes 4
    """
    from configs.plugins import trust
    from configs.run import load
    from launch.lifecycle import cluster as profiles
    from launch.supervise import submit as submission

    if trust_code or config.resolve().parent == run.resolve():
        trust(config.parent)
    profile = profiles.load(cluster, nodes=nodes, minutes=minutes)
    raise typer.Exit(submission.submit(load(config, overrides or ()), run, profile, dry_run=dry_run, as_json=as_json))


@app.command()
def resume(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value of what does not decide the result, such as data.num_threads=4."),
    ] = None,
    *,
    cluster: SameCluster = None,
    nodes: Nodes = 0,
    minutes: Minutes = 0,
    as_json: AsJson = False,
) -> None:
    """Submit a run again from its newest checkpoint, perhaps on another number of nodes or another cluster.

    Example: perceiver resume runs/digits --nodes 2
    """
    from launch.supervise import submit as submission

    changes = {"nodes": nodes, "minutes": minutes}
    raise typer.Exit(submission.resume(run, cluster, changes, overrides or (), as_json=as_json))


@app.command()
def sweep(
    config: Config,
    assignments: Annotated[list[str], typer.Argument(help="key=value,value,... ; every combination is a run.")],
    *,
    run: Annotated[Path, typer.Option("--run", help="Folder of the sweep; it gets a run folder for each.")],
    cluster: Annotated[str, typer.Option("--cluster", help="Profile; or give --procs.")] = "",
    procs: Annotated[
        int, typer.Option("--procs", min=0, help="Processes on this machine, without Slurm: one run after the other.")
    ] = 0,
    nodes: Nodes = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and scripts and submit nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run for every combination of values: as a job array, or on this machine.

    Examples:

    perceiver sweep configs/digits.yaml optimizer.learning_rate=1e-3,2e-3 --run runs/rates --cluster plain

    perceiver sweep configs/digits.yaml optimizer.learning_rate=1e-3,2e-3 --run runs/rates --procs 2
    """
    from launch.supervise import submit as submission

    if bool(cluster) == bool(procs):
        raise ValueError("a sweep runs on a cluster or on this machine; give one of --cluster and --procs")
    if procs:
        from launch.supervise import local

        runs = submission.sweep_runs(config, assignments, run)
        raise typer.Exit(local.sweep(runs, procs, dry_run=dry_run, as_json=as_json))
    from launch.lifecycle import cluster as profiles

    profile = profiles.load(cluster, nodes=nodes)
    raise typer.Exit(submission.sweep(config, assignments, run, profile, dry_run=dry_run, as_json=as_json))


@app.command()
def status(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs and sweeps; ./runs if none is given.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 s until all have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far runs are: state, job, attempt, nodes, step, loss, speed, goodput, checkpoint, why one waits.

    Example: perceiver status runs/digits runs/av_digits --watch
    """
    from launch.report import status as state

    raise typer.Exit(state.main(runs or (), watch=watch, as_json=as_json))


@app.command()
def logs(
    run: Run,
    rank: Annotated[int, typer.Option("--rank", min=0, help="Whose output.")] = 0,
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="Of which attempt; 0 for the newest.")] = 0,
    batch: Annotated[bool, typer.Option("--batch", help="What Slurm's batch script printed.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
) -> None:
    """Print what a rank printed.

    Example: perceiver logs runs/digits -f --rank 3
    """
    from launch.report import logs as output

    raise typer.Exit(output.main(run, rank=rank, attempt=attempt, batch=batch, follow=follow))


@app.command()
def stop(run: RunOrSweep) -> None:
    """Let a run save at its next step and end; `perceiver resume` goes on with it.

    Example: perceiver stop runs/digits
    """
    from launch.supervise import stop as ending

    raise typer.Exit(ending.stop(run))


@app.command()
def cancel(run: RunOrSweep) -> None:
    """End a run's job at once.

    Example: perceiver cancel runs/digits
    """
    from launch.supervise import stop as ending

    raise typer.Exit(ending.cancel(run))


@app.command()
def fork(
    run: Run,
    new: Annotated[Path, typer.Argument(help="New run folder.")],
    overrides: Overrides = None,
    checkpoint: Checkpoint = "newest",
    trust_code: TrustCode = False,
) -> None:
    """Make a run that goes on from a checkpoint of another with another configuration: not another network or data.

    Example: perceiver fork runs/digits runs/slower optimizer.learning_rate=5e-4
    """
    from configs.plugins import trust
    from launch.run import fork as copy

    if trust_code:
        trust(run)
    raise typer.Exit(copy.fork(run, new, overrides or (), checkpoint))


@app.command()
def diff(run: Run, other: Annotated[Path, typer.Argument(help="Another run folder.")]) -> None:
    """Print the values and code files in which two runs differ; exit status 1 if there are any.

    Example: perceiver diff runs/digits runs/slower
    """
    from launch.run import fork as copy

    raise typer.Exit(copy.diff(run, other))


@app.command()
def doctor(
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Profile; examines its nodes by a short job.")
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the runs will be.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Say whether this machine, and a cluster, are fit for a run; exit status 1 if not.

    Example: perceiver doctor --cluster preemptible --folder runs
    """
    from launch.doctor import examination

    raise typer.Exit(examination.main(cluster, folder, as_json=as_json))
