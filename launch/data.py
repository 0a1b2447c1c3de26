"""The commands `perceiver data build|index|verify|show`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_shards.manifest import Manifest

app = typer.Typer(no_args_is_help=True, help="Make, adopt, check and look at shards.")
build_app = typer.Typer(no_args_is_help=True, help="Turn raw files into tar shards and a manifest.")
app.add_typer(build_app, name="build")

Out = Annotated[Path, typer.Argument(help="Folder to write; a build that was interrupted goes on in it.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all draws; the same seed gives the same bytes.")]
MaxBad = Annotated[int, typer.Option("--max-bad", min=0, help="Rows that may be unreadable before the build fails.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@build_app.command()
def digits(out: Out, seed: Seed = 0, jobs: Jobs = 2, as_json: AsJson = False) -> None:
    """The built-in digits: each as an image, a keypad tone, a point cloud, a clip and its name in words.

    Example: perceiver data build digits data/digits
    """
    from data_shards.sources import digits as source

    with _progress("digits") as progress:
        manifest = source.build(out, seed=seed, num_jobs=jobs, progress=progress)
    _report(out, manifest, as_json)


@build_app.command("av-digits")
def av_digits(
    out: Out,
    images: Annotated[Path, typer.Option(help="MNIST as PNG: a zip or folder with train|test/DIGIT/*.png.")],
    recordings: Annotated[Path, typer.Option(help="The Free Spoken Digit Dataset: a zip or folder with *.wav.")],
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Handwritten digits paired with spoken ones.

    Example: perceiver data build av-digits --images mnist_png.zip --recordings fsdd.zip data/av_digits
    """
    from data_shards.sources import av_digits as source

    with _progress("av-digits") as progress:
        manifest = source.build(out, images=images, recordings=recordings, seed=seed, num_jobs=jobs, progress=progress)
    _report(out, manifest, as_json)


@build_app.command()
def table(
    table: Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet; one row a sample.")],
    out: Out,
    max_bad: MaxBad = 0,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Samples in a shard.")] = 1_000,
    seed: Seed = 0,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """A table with the columns image, audio, video, points, text (paths, or text in the cell), label, weight, split.

    Example: perceiver data build table samples.csv data/samples
    """
    from data_shards.sources import table as source

    with _progress(table.name) as progress:
        manifest = source.build(
            table,
            out,
            max_bad=max_bad,
            seed=seed,
            samples_per_shard=samples_per_shard,
            num_jobs=jobs,
            progress=progress,
        )
    _report(out, manifest, as_json)


@app.command()
def index(folder: Annotated[Path, typer.Argument(help="Folder of tar files.")], as_json: AsJson = False) -> None:
    """Adopt plain tars that webdataset, img2dataset or GNU tar wrote: index them and write a manifest.

    Example: perceiver data index data/laion
    """
    from data_shards import adopt

    with _progress("index") as progress:
        manifest = adopt.index(folder, progress=progress)
    _report(folder, manifest, as_json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Shard folder.")], jobs: Jobs = 2, as_json: AsJson = False
) -> None:
    """Read everything: hashes of every shard, checksums and decoders of every sample. Exit status 1 if any is bad.

    Example: perceiver data verify data/digits
    """
    from data_shards import verify as verification

    with _progress("verify") as progress:
        report = verification.verify(folder, num_jobs=jobs, progress=progress)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"ok": report.ok}))
    else:
        for bad in report.bad:
            typer.echo(f"bad: {bad.shard} {bad.key}: {bad.reason}")
        typer.echo(f"{report.samples} samples, {len(report.bad)} bad")
        typer.echo("shapes: " + ", ".join(f"{name} {shape}" for name, shape in report.shapes.items()))
        typer.echo("labels: " + ", ".join(f"{name} {count}" for name, count in report.labels.items()))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Shard folder.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path("contact_sheet.png"),
    split: Annotated[str, typer.Option(help="Split to draw from.")] = "train",
    samples: Annotated[int, typer.Option(min=1, help="Samples to draw.")] = 8,
) -> None:
    """Draw a contact sheet: images, spectrograms, clips, point clouds, text and labels.

    Example: perceiver data show data/digits --out digits.png
    """
    from data_shards import show as drawing

    drawing.contact_sheet(folder, out, split=split, num_samples=samples)
    typer.echo(f"wrote {out}")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def _report(folder: Path, manifest: Manifest, as_json: bool) -> None:
    splits = {
        name: {
            "samples": split.num_samples,
            "shards": len(split.shards),
            "bytes": sum(shard.num_bytes for shard in split.shards),
        }
        for name, split in manifest.splits.items()
    }
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "splits": splits, "labels": list(manifest.label_names)}))
        return
    for name, counts in splits.items():
        typer.echo(
            f"{folder}/{name}: {counts['samples']} samples in {counts['shards']} shards, {counts['bytes']} bytes"
        )
