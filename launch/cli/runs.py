"""The commands for the life of a run: submit, resume, sweep, status, logs, stop, cancel, fork, diff, doctor.

Each command imports what it needs when it is called. With torch, the imports of `perceiver status` took 2.5 s and not
0.9 s.
"""

from pathlib import Path
from typing import Annotated

import typer

from launch.cli.console import AsJson, Checkpoint, Tiny, TrustCode, configuration

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="Run folder.")]
RunOrSweep = Annotated[Path, typer.Argument(help="Folder of a run or of a sweep.")]
Config = Annotated[Path, typer.Argument(help="YAML file of the run, such as configs/digits.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as train.steps=1000.")]
RunOption = Annotated[Path, typer.Option("--run", help="Run folder.")]
Cluster = Annotated[str, typer.Option("--cluster", help="Cluster profile: a YAML file, or a name in configs/clusters.")]
SameCluster = Annotated[
    str | None, typer.Option("--cluster", help="Cluster profile. Default: that of the last submission.")
]
Nodes = Annotated[int, typer.Option("--nodes", min=0, help="Number of nodes; 0 for the profile's number.")]
Minutes = Annotated[int, typer.Option("--minutes", min=0, help="Time limit of an attempt; 0 for the profile's limit.")]


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
    tiny: Tiny = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Check a run, copy its code and configuration, and submit it to Slurm.

    Example: perceiver submit configs/digits.yaml data.shards=data/digits --run runs/digits --cluster plain --nodes 4
    """
    from configs.plugins import trust
    from launch.lifecycle import cluster as profiles
    from launch.supervise import submit as submission

    # A run's own configuration names plug-ins that were frozen with it, and were trusted then.
    if trust_code or config.resolve().parent == run.resolve():
        trust(config.parent)
    profile = profiles.load(cluster, nodes=nodes, minutes=minutes)
    loaded = configuration(config, overrides, tiny=tiny, trust_code=trust_code)
    raise typer.Exit(submission.submit(loaded, run, profile, dry_run=dry_run, as_json=as_json))


@app.command()
def resume(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value that cannot change the result, such as data.num_threads=4."),
    ] = None,
    *,
    cluster: SameCluster = None,
    nodes: Nodes = 0,
    minutes: Minutes = 0,
    as_json: AsJson = False,
) -> None:
    """Resume a run from its newest checkpoint, also on another number of nodes or another cluster.

    Example: perceiver resume runs/digits --nodes 2
    """
    from launch.supervise import submit as submission

    changes = {"nodes": nodes, "minutes": minutes}
    raise typer.Exit(submission.resume(run, cluster, changes, overrides or (), as_json=as_json))


@app.command()
def sweep(
    config: Config,
    assignments: Annotated[list[str], typer.Argument(help="key=value,value,... Every combination is a run.")],
    *,
    run: Annotated[Path, typer.Option("--run", help="Folder of the sweep. It will contain the run folders.")],
    cluster: Annotated[str, typer.Option("--cluster", help="Cluster profile. Give this or --procs.")] = "",
    procs: Annotated[
        int, typer.Option("--procs", min=0, help="Processes on this machine, without Slurm. One run at a time.")
    ] = 0,
    nodes: Nodes = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and scripts and submit nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run for every combination of values, as a Slurm job array or on this machine.

    Examples:

    perceiver sweep configs/digits.yaml optimizer.learning_rate=1e-3,2e-3 --run runs/rates --cluster plain

    perceiver sweep configs/digits.yaml optimizer.learning_rate=1e-3,2e-3 --run runs/rates --procs 2
    """
    from launch.supervise import submit as submission

    # Neither or both: which machine trains is nothing to guess.
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
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs and sweeps. Default: ./runs.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 s until all runs have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the progress of runs: state, job, nodes, step, loss, speed, goodput, checkpoint, and why a run waits.

    Example: perceiver status runs/digits runs/av_digits --watch
    """
    from launch.report import status as state

    raise typer.Exit(state.main(runs or (), watch=watch, as_json=as_json))


@app.command()
def logs(
    run: Run,
    rank: Annotated[int, typer.Option("--rank", min=0, help="Rank whose output is printed.")] = 0,
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="Number of the attempt; 0 for the newest.")] = 0,
    batch: Annotated[bool, typer.Option("--batch", help="Print the output of Slurm's batch script.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the output until Ctrl-C.")] = False,
) -> None:
    """Print the output of a rank.

    Example: perceiver logs runs/digits -f --rank 3
    """
    from launch.report import logs as output

    raise typer.Exit(output.main(run, rank=rank, attempt=attempt, batch=batch, follow=follow))


@app.command()
def stop(run: RunOrSweep) -> None:
    """Save a run at its next step and end it. `perceiver resume` resumes it.

    Example: perceiver stop runs/digits
    """
    from launch.supervise import stop as ending

    raise typer.Exit(ending.stop(run))


@app.command()
def cancel(run: RunOrSweep) -> None:
    """Cancel a run's job at once, without a save.

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
    """Start a new run from a checkpoint of another run, with other values: more steps, another rate or optimizer.

    Network and data must be the same. For others take the weights alone, by initial_weights.source of a new run.

    Example: perceiver fork runs/digits runs/slower optimizer.learning_rate=5e-4
    """
    from configs.plugins import trust
    from launch.run import fork as copy

    if trust_code:
        trust(run)
    raise typer.Exit(copy.fork(run, new, overrides or (), checkpoint))


@app.command()
def diff(run: Run, other: Annotated[Path, typer.Argument(help="Another run folder.")]) -> None:
    """Print the values and code files that differ between two runs. Exit status 1 if any differ.

    Example: perceiver diff runs/digits runs/slower
    """
    from launch.run import fork as copy

    raise typer.Exit(copy.diff(run, other))


@app.command()
def doctor(
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Cluster profile. A short job examines its nodes.")
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the runs.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Check whether this machine, and a cluster, can train runs. Exit status 1 if not.

    Example: perceiver doctor --cluster preemptible --folder runs
    """
    from launch.doctor import examination

    raise typer.Exit(examination.main(cluster, folder, as_json=as_json))
