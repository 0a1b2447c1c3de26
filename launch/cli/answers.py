"""The commands for new samples: predict, embed and generate."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.cli.console import AsJson, Checkpoint, Latents, OnCluster, TrustCode, Weights, progress_bar

if TYPE_CHECKING:
    from launch.answers.request import Asked

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="Run folder, or a folder that `perceiver import` wrote.")]
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
    latents: Latents = 0,
    split: Split = "",
    batch: BatchSize = 0,
    cluster: OnCluster = "",
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
    from launch.answers import commands
    from launch.answers.request import Asked

    _trust(run, trust_code=trust_code)
    asked = Asked(
        run,
        tuple(new),
        out,
        top=top,
        checkpoint=checkpoint,
        weights=weights,
        split=split,
        batch=batch,
        latents=latents,
    )
    _on_cluster(cluster, "predict", asked)
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
    latents: Latents = 0,
    split: Split = "",
    batch: BatchSize = 0,
    cluster: OnCluster = "",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write the latents of new samples, a row per sample, with their keys.

    Example: perceiver embed runs/pictures photos/ --out latents.safetensors
    """
    from launch.answers import commands
    from launch.answers.request import Asked

    _trust(run, trust_code=trust_code)
    asked = Asked(
        run,
        tuple(new),
        out,
        checkpoint=checkpoint,
        weights=weights,
        split=split,
        batch=batch,
        latents=latents,
        whole=whole,
    )
    _on_cluster(cluster, "embed", asked)
    with progress_bar("embed") as progress:
        status = commands.embed(asked, progress, as_json=as_json)
    raise typer.Exit(status)


@app.command()
def generate(
    run: Run,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Text, or the file of an array. May be repeated. Default: the beginning."),
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="File with a prompt in each line.")] = None,
    length: Annotated[
        int, typer.Option("--length", min=1, help="Bytes, tokens or entries that are added to a prompt.")
    ] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Divides the logits; 0 takes the most likely answer.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Draw from so many answers, the most likely; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw from the most likely answers that have this probability in all.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first prompt; each further one adds 1.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="File for texts, as JSON lines; folder for arrays.")] = None,
    checkpoint: Checkpoint = "newest",
    weights: Weights = "",
    trust_code: TrustCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each prompt.")] = False,
) -> None:
    """Continue prompts with a run whose output is of kind autoregressive.

    Example: perceiver generate runs/text --prompt "The latents" --length 200 --temperature 0.8 --seed 0
    """
    from launch.answers import generation
    from model.generation.sampling import Sampling

    # What is typed is checked before a network is loaded.
    asked = generation.Request(
        prompt or (), prompts, length, Sampling(temperature, top_k, top_p), seed=seed, out=out, as_json=as_json
    )
    with progress_bar("generate") as progress:
        chosen = generation.Chosen(checkpoint, weights, trust_code=trust_code)
        status = generation.main(run, asked, chosen, progress)
    raise typer.Exit(status)


def _on_cluster(profile: str, command: str, asked: "Asked") -> None:
    """Submit what was typed as a job, where a profile of a cluster is named, and end with the status of that."""
    if profile:
        from launch.answers import request
        from launch.cli import on_cluster
        from launch.run.trained.network import config_of

        # What is wrong is told now, and not by a job that waited for hours.
        request.check(command, asked, config_of(asked.run))
        raise typer.Exit(on_cluster.submit(profile, sys.argv[1:], asked.out.parent))


def _trust(run: Path, *, trust_code: bool) -> None:
    # Before the configuration is read: reading it runs the plug-ins.
    if trust_code:
        from configs.plugins import trust

        trust(run)
