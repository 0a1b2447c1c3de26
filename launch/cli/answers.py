"""The commands for new samples: predict and embed."""

from pathlib import Path
from typing import Annotated

import typer

from launch.cli.console import AsJson, Checkpoint, TrustCode, Weights, progress_bar

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="Run folder, or a folder that import-hf wrote.")]
New = Annotated[
    list[str], typer.Argument(help="Files, folders, tables (one row per sample) and shard folders, in any number.")
]
Split = Annotated[str, typer.Option("--split", help="Split of shard folders. Default: the one that is evaluated.")]
BatchSize = Annotated[
    int, typer.Option("--batch", min=0, help="Samples answered at once. Default: those of the run, at most 64.")
]


@app.command()
def predict(
    run: Run,
    new: New,
    *,
    out: Annotated[Path, typer.Option("--out", help="Table to write: .parquet, .csv or .jsonl.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Number of classes per answer, the most likely first.")] = 1,
    checkpoint: Checkpoint = "newest",
    weights: Weights = "",
    split: Split = "",
    batch: BatchSize = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Answer new samples: a table with a row per sample, and files beside it for motion and reconstructions.

    A file that cannot be read is skipped, counted and listed. The same command resumes after a kill.

    Examples:

    perceiver predict runs/pictures photos/ extra.jpg --out answers.csv --top 5

    perceiver predict runs/av_digits pairs.csv --out answers.parquet

    torchrun --nproc-per-node 2 -m -- launch predict runs/digits data/digits --out answers.jsonl
    """
    from configs.plugins import trust
    from launch.answers import commands

    if trust_code:
        trust(run)
    asked = commands.Asked(
        run, tuple(new), out, top=top, checkpoint=checkpoint, weights=weights, split=split, batch=batch
    )
    with progress_bar("predict") as progress:
        status = commands.predict(asked, progress, as_json=as_json)
    raise typer.Exit(status)


@app.command()
def embed(
    run: Run,
    new: New,
    *,
    out: Annotated[Path, typer.Option("--out", help="Array to write: .safetensors or .npy.")],
    whole: Annotated[bool, typer.Option("--whole", help="Write all latents, not their mean.")] = False,
    checkpoint: Checkpoint = "newest",
    weights: Weights = "",
    split: Split = "",
    batch: BatchSize = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write the latents of new samples, a row per sample, with their keys.

    Example: perceiver embed runs/pictures photos/ --out latents.safetensors
    """
    from configs.plugins import trust
    from launch.answers import commands

    if trust_code:
        trust(run)
    asked = commands.Asked(
        run, tuple(new), out, checkpoint=checkpoint, weights=weights, split=split, batch=batch, whole=whole
    )
    with progress_bar("embed") as progress:
        status = commands.embed(asked, progress, as_json=as_json)
    raise typer.Exit(status)
