"""The commands `perceiver data build|index|verify|show`."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from data_shards.files.display import printable
from data_shards.files.quoting import counted
from launch.cli import build, layouts
from launch.cli.console import AsJson, Jobs, Plugins, TrustCode, progress_bar, report_shards, run_config

_PLACES = 20
"""So many places of one reason are printed."""

app = typer.Typer(no_args_is_help=True, help="Build, adopt, verify and show shards.")
layouts.add_commands(build.app)
app.add_typer(build.app, name="build")


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of tar files.")],
    labels_from: Annotated[
        str | None, typer.Option(help="Field of the .json members with the class of a sample, or a list of classes.")
    ] = None,
    named_labels_from: Annotated[
        str | None, typer.Option(help="Field with further labels: an object of names and classes.")
    ] = None,
    weight_from: Annotated[
        str | None, typer.Option(help="Field with the weight of a sample in the loss. Default: weight 1.")
    ] = None,
    values_from: Annotated[
        str | None,
        typer.Option(help="Field that holds numbers to be answered, an object of names and numbers; . for the record."),
    ] = None,
    index_folder: Annotated[
        Path | None, typer.Option(help="Write indexes and manifest here instead of next to the tars.")
    ] = None,
    config: Plugins = None,
    *,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Adopt tars written by webdataset, img2dataset or GNU tar: index them and write a manifest.

    Labels come from .cls members. Of .json members only the fields that you name are taken, and what you name is
    kept in the manifest: it holds until you name others.

    Examples:

    perceiver data index data/laion

    perceiver data index data/tagged --labels-from tags --weight-from score

    perceiver data index /read_only/laion --index-folder data/laion
    """
    from data_shards.building import adoption
    from data_shards.format.annotations import Records

    # Plug-ins register when their configuration is read; nothing else of it is used here.
    if config:
        run_config(config, trust_code=trust_code)
    fields = (labels_from, named_labels_from, weight_from, values_from)
    # Without any of these what was named before holds. An empty name takes nothing from now on.
    records = Records(*(name or "" for name in fields)) if any(name is not None for name in fields) else None
    told: list[str] = []
    with progress_bar("index") as progress:
        manifest = adoption.index(
            folder, records=records, index_folder=index_folder, progress=progress, tell=told.append
        )
    if not as_json:
        for sentence in told:
            typer.echo(printable(sentence))
    report_shards(index_folder or folder, manifest, as_json=as_json, notes=told)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Shard folder.")],
    config: Annotated[
        Path | None, typer.Option(help="YAML file of a run: verify only what this run reads, in the same way.")
    ] = None,
    jobs: Jobs = 2,
    *,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Verify shards: hashes, checksums, and each sample as training reads it. Exit status 1 if any is bad.

    Bad are the samples that a training with this configuration would find bad; without one, a training on all
    modalities of the shards.

    Examples:

    perceiver data verify data/digits

    perceiver data verify data/laion --config configs/image_text.yaml
    """
    from data_shards.building.inspection import verification

    read = run_config(config, trust_code=trust_code).data if config else None
    with progress_bar("verify") as progress:
        report = verification.verify(folder, read, num_jobs=jobs, progress=progress)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"ok": report.ok}))
    else:
        _print_each("bad", [(each.reason, f"{each.shard} {each.key}") for each in report.bad])
        _print_each("incomplete", [(each.reason, f"{each.shard} {each.key}") for each in report.incomplete])
        incomplete = f", {len(report.incomplete)} incomplete" if report.incomplete else ""
        left_out = f", {report.left_out} left out by data.require" if report.left_out else ""
        typer.echo(f"{counted(report.samples, 'sample')}, {len(report.bad)} bad{incomplete}{left_out}")
        typer.echo("shapes: " + ", ".join(f"{name} {_range(*shape)}" for name, shape in report.shapes.items()))
        typer.echo(printable("labels: " + ", ".join(f"{name} {count}" for name, count in report.labels.items())))
    # 1 and not 2: the command did what was asked, and what it found is bad.
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Shard folder.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path("contact_sheet.png"),
    split: Annotated[str, typer.Option(help="Split to show.")] = "train",
    samples: Annotated[int, typer.Option(min=1, help="Number of samples to show.")] = 8,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of a run: show its inputs, also those of its plug-ins.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Draw a contact sheet: images, spectrograms, clips, point clouds, arrays, text and labels.

    Examples:

    perceiver data show data/digits --out digits.png

    perceiver data show data/eeg --config eeg.yaml
    """
    from data_shards.building.inspection import contact_sheet

    inputs = run_config(config, trust_code=trust_code).data.ordered_inputs if config else None
    contact_sheet.contact_sheet(folder, out, split=split, num_samples=samples, inputs=inputs)
    typer.echo(f"wrote {printable(str(out))}")


def _print_each(what: str, found: list[tuple[str, str]]) -> None:
    """Print (reason, place) a line; of a reason that very many places have, the first ones and how many more."""
    count = Counter(reason for reason, _ in found)
    printed: Counter[str] = Counter()
    for reason, place in found:
        printed[reason] += 1
        if printed[reason] <= _PLACES:
            typer.echo(printable(f"{what}: {place}: {reason}"))
        elif printed[reason] == count[reason]:
            typer.echo(
                printable(f"{what}: {count[reason] - _PLACES} more, for the same reason (--json lists them): {reason}")
            )


def _range(least: list[int], greatest: list[int]) -> str:
    """Return the shapes between two, as they are printed."""
    return str(least) if least == greatest else f"{least} to {greatest}"
