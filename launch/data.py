"""The commands `perceiver data build|index|verify|show`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from data_shards.display import printable
from launch import build
from launch.console import AsJson, Jobs, progress_bar, report_shards

app = typer.Typer(no_args_is_help=True, help="Make, adopt, check and look at shards.")
app.add_typer(build.app, name="build")


@app.command()
def index(folder: Annotated[Path, typer.Argument(help="Folder of tar files.")], as_json: AsJson = False) -> None:
    """Adopt plain tars that webdataset, img2dataset or GNU tar wrote: index them and write a manifest.

    Example: perceiver data index data/laion
    """
    from data_shards import adopt

    with progress_bar("index") as progress:
        manifest = adopt.index(folder, progress=progress)
    report_shards(folder, manifest, as_json=as_json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Shard folder.")], jobs: Jobs = 2, as_json: AsJson = False
) -> None:
    """Read everything: hashes of every shard, checksums and decoders of every sample. Exit status 1 if any is bad.

    Example: perceiver data verify data/digits
    """
    from data_shards import verify as verification

    with progress_bar("verify") as progress:
        report = verification.verify(folder, num_jobs=jobs, progress=progress)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"ok": report.ok}))
    else:
        for bad in report.bad:
            typer.echo(printable(f"bad: {bad.shard} {bad.key}: {bad.reason}"))
        typer.echo(f"{report.samples} samples, {len(report.bad)} bad")
        typer.echo("shapes: " + ", ".join(f"{name} {shape}" for name, shape in report.shapes.items()))
        typer.echo(printable("labels: " + ", ".join(f"{name} {count}" for name, count in report.labels.items())))
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
    typer.echo(f"wrote {printable(str(out))}")
