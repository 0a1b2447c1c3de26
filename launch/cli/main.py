"""The command `perceiver`; `python -m launch` is the same."""

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from data_shards.files.atomic import of_disk
from data_shards.files.display import printable_lines
from data_shards.files.plugin_files import fault_in
from data_shards.files.quoting import MAX_MESSAGE, cut
from launch import versions
from launch.cli import answers, data, networks, reports, runs
from launch.cli.console import AsJson, Checkpoint, OnCluster, Tiny, TrustCode, Weights, configuration
from launch.lifecycle.exit_status import BAD_INPUT, FAILED

# Tracebacks are printed below, without the passwords that a frame's variables may hold.
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train multimodal Perceivers on tar shards. A run that stops resumes bit-exactly from its checkpoint.",
)
app.add_typer(data.app, name="data")
app.add_typer(runs.app)
app.add_typer(answers.app)
app.add_typer(reports.app)
app.add_typer(networks.app)


def _show_version(asked: bool) -> None:  # as typer calls it
    if asked:
        typer.echo(versions.sentence())
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # its callback has acted by then
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run, such as configs/digits.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as train.steps=1000.")] = None,
    *,
    run: Annotated[Path, typer.Option("--run", help="Run folder. A run that exists is resumed.")],
    procs: Annotated[
        int,
        typer.Option("--procs", min=0, help="Supervised processes on this machine, restarted after a failure."),
    ] = 0,
    take_over: Annotated[bool, typer.Option("--take-over", help="Claim the lock of a run whose host is dead.")] = False,
    tiny: Tiny = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train a run, or resume the one in the folder.

    Examples:

    perceiver train configs/digits.yaml data.shards=data/digits --run runs/digits

    perceiver train configs/digits.yaml data.shards=data/digits --run runs/digits --procs 2

    perceiver train configs/recipes/perceiver_imagenet.yaml data.shards=data/imagenet --run runs/try --tiny

    torchrun --nproc-per-node 2 -m -- launch train configs/digits.yaml data.shards=data/digits --run runs/digits
    """
    from configs.plugins import trust

    # A run that is resumed by its own configuration is one whose code is to be executed.
    if trust_code or config.resolve().parent == run.resolve():
        trust(config.parent)
    loaded = configuration(config, overrides, tiny=tiny, trust_code=trust_code)
    # The supervisor itself needs no PyTorch: its ranks are processes of their own.
    if procs:
        from launch.supervise import local

        raise typer.Exit(local.start(loaded, run, procs, take_over=take_over, as_json=as_json))

    from launch.run import composition

    raise typer.Exit(composition.main(loaded, run, take_over=take_over, as_json=as_json))


@app.command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, or a folder that `perceiver import` wrote.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Other data, as data.shards=OTHER. Results go to RUN/evaluations."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split to evaluate. Default: data.eval_split of the run.")] = "",
    checkpoint: Checkpoint = "newest",
    weights: Weights = "",
    cluster: OnCluster = "",
    latents: Annotated[
        str,
        typer.Option("--latents", help='A size in model.nested_latents, or "all" for a table and a picture of them.'),
    ] = "",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint on a split that was not trained on, and draw the pictures of the run.

    Examples:

    perceiver eval runs/digits --checkpoint best --json

    perceiver eval runs/digits data.shards=data/other --split val

    perceiver eval runs/digits --cluster plain
    """
    from configs.plugins import trust
    from launch.run.trained import evaluation

    if trust_code:
        trust(run)
    if cluster:
        from launch.cli import on_cluster

        # What is wrong is told now, and not by a job that waited for hours.
        evaluation.check(run, overrides or (), which=checkpoint, weights=weights, split=split, latents=latents)
        # What was typed travels as it is: the ranks parse it again, with the same defaults.
        raise typer.Exit(on_cluster.submit(cluster, sys.argv[1:], run / "logs"))
    raise typer.Exit(
        evaluation.main(
            run, overrides or (), which=checkpoint, weights=weights, split=split, latents=latents, as_json=as_json
        )
    )


def main() -> None:
    """Run the command. An error that a user can correct is one message and status 2, never a traceback."""
    try:
        versions.check_packages()
        app(prog_name="perceiver")
    except ValueError as error:
        sys.stderr.write(f"perceiver: {printable_lines(cut(fault_in(error) or str(error), MAX_MESSAGE))}\n")
        sys.exit(BAD_INPUT)
    except OSError as error:
        # A full or read-only disk is for the user to correct, and another start would meet it again: status 2.
        sentence = of_disk(error)
        sys.stderr.write(printable_lines(f"perceiver: {sentence}\n" if sentence else traceback.format_exc()))
        sys.exit(BAD_INPUT if sentence else FAILED)
    except Exception as error:  # noqa: BLE001  # as Python would end, but that a traceback may have a password in it
        fault = fault_in(error)
        sys.stderr.write(printable_lines(f"perceiver: {fault}\n" if fault else traceback.format_exc()))
        sys.exit(BAD_INPUT if fault else FAILED)
