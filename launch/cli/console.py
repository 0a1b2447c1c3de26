"""Parts that the commands share on the terminal: options, a progress bar, the report on shards."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_shards.files.display import printable
from data_shards.files.quoting import counted, listed
from data_shards.format.manifest import Manifest

if TYPE_CHECKING:
    from configs.run import RunConfig

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", help="Checkpoint: newest, best (by its evaluation), or the number of a step.")
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        help="trained, or ema (the moving average of the weights). Default: what the run evaluates.",
    ),
]
OnCluster = Annotated[
    str, typer.Option("--cluster", help="Cluster profile: run as one Slurm job, submit it and return.")
]
Latents = Annotated[
    int,
    typer.Option("--latents", min=0, help="Take the first latents only, one of model.nested_latents; 0 takes all."),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run the plug-ins of the run: its author's code. Read them first.")
]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="Shrink all sizes to try shards and configuration: two steps and an evaluation.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Number of processes.")]
Plugins = Annotated[
    Path | None, typer.Option("--config", help="YAML file of a run: files that its plug-ins can read are accepted too.")
]


def configuration(path: Path, overrides: Sequence[str] | None, *, tiny: bool, trust_code: bool) -> "RunConfig":
    """Return the configuration of a run to be started, or of the tiny one; trust the run that gives its weights."""
    if tiny:
        from configs.tiny import load_tiny as load
    else:
        from configs.run import load
    config = load(path, overrides or ())
    source = config.initial_weights.source
    if trust_code and source:
        from configs.plugins import trust

        # RUN, or RUN@best.
        for run in {source, source.rpartition("@")[0] or source}:
            trust(Path(run))
    return config


def run_config(path: Path, *, trust_code: bool) -> "RunConfig":
    """Return the configuration of a run; its plug-ins are in use from then on."""
    from configs.plugins import trust
    from configs.run import load

    if trust_code:
        trust(path.parent)
    return load(path)


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error and give the function that moves it: (done, total)."""
    # Without markup: a name of the user's may hold brackets, which rich would take for styles.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(name), total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        try:
            yield advance
        finally:
            if bar.tasks[task].total is None:
                # Everything was there already, or was refused: a bar that never moved would look like work undone.
                bar.update(task, visible=False)


def report_shards(folder: Path, manifest: Manifest, *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """Print the contents of a shard folder; `notes` are the sentences printed before, for programs that read JSON."""
    splits = {
        name: {
            "samples": split.num_samples,
            "shards": len(split.shards),
            "bytes": sum(shard.num_bytes for shard in split.shards),
        }
        for name, split in manifest.splits.items()
    }
    if as_json:
        found = {"folder": str(folder), "splits": splits, "labels": list(manifest.label_names), "notes": list(notes)}
        typer.echo(json.dumps(found))
        return
    for name, counts in splits.items():
        samples, shards = counted(counts["samples"], "sample"), counted(counts["shards"], "shard")
        typer.echo(f"{printable(f'{folder}/{name}')}: {samples} in {shards}, {counted(counts['bytes'], 'byte')}")
    classes = {"": manifest.label_names, **{f"label {name}: ": names for name, names in manifest.named_labels.items()}}
    for which, names in classes.items():
        if names:
            typer.echo(printable(f"{folder}: {which}{counted(len(names), 'class')}: {listed(names)}"))
