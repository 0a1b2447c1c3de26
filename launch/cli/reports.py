"""The commands that report on runs and inject faults into them: report, attention, chaos."""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from data_shards.files import atomic
from data_shards.files.display import printable
from data_shards.files.quoting import shown
from launch.cli.console import AsJson, Checkpoint, TrustCode, Weights, progress_bar

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="Run folder.")]


@app.command()
def report(run: Run, as_json: AsJson = False) -> None:
    """Write RUN/report.html: curves, attempts, goodput, configuration and pictures, in one self-contained file.

    Example: perceiver report runs/digits
    """
    from launch.lifecycle.attempts import times
    from launch.lifecycle.run_folder import RunFolder, existing
    from trainer.sinks.attempt_time import goodput
    from trainer.sinks.page import Story, newest_training_line, num_skipped, page, read_records

    folder = existing(RunFolder(run.resolve()))
    attempts = times(folder)
    story = Story(
        name=folder.path.name,
        # Whatever bytes a damaged file has, the rest of the report is of use.
        config=folder.config_path.read_bytes().decode(errors="replace"),
        records=read_records(folder.metrics_path),
        attempts=attempts,
        pictures=sorted(folder.pictures_folder.glob("*.png")),
        texts=sorted(folder.pictures_folder.glob("*.txt")),
    )
    out = folder.path / "report.html"
    atomic.write(out, page(story))
    share = goodput(attempts)
    told: float | str = share if as_json else f"{share:.1%}"
    skipped = num_skipped(newest_training_line(story.records))
    found = {"report": str(out), "attempts": len(attempts), "goodput": told, "skipped_steps": skipped}
    _tell(found, as_json=as_json)


@app.command()
def attention(
    run: Run,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Index of the test sample.")] = 0,
    checkpoint: Checkpoint = "newest",
    weights: Weights = "",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Draw the attention weights for a test sample, one picture per modality: RUN/pictures/attention_*.png.

    Example: perceiver attention runs/digits --sample 3
    """
    from configs.plugins import trust
    from launch.report.attention_pictures import main as draw

    if trust_code:
        trust(run)

    _tell({"pictures": [str(path) for path in draw(run, sample, checkpoint, weights)]}, as_json=as_json)


@app.command()
def chaos(
    config: Annotated[Path, typer.Argument(help="YAML file of a short run.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as train.steps=40.")] = None,
    *,
    faults: Annotated[int, typer.Option("--faults", min=1, help="Number of faults to inject.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the faults.")] = 0,
    procs: Annotated[int, typer.Option("--procs", min=1, help="Processes per run, on this machine.")] = 1,
    resizes: Annotated[int, typer.Option("--resizes", min=0, help="Resumes with another number of processes.")] = 0,
    keep: Annotated[Path | None, typer.Option("--keep", help="New folder for the runs and their log.")] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Inject faults into a run and compare its weights with those of an undisturbed run. Shards are copied.

    Example: perceiver chaos configs/digits.yaml data.shards=data/digits train.steps=60 --faults 20 --procs 2
    """
    from configs.plugins import trust
    from configs.run import load
    from launch.chaos.campaign import Campaign
    from launch.run.loaders import absolute

    if trust_code:
        trust(config.parent)
    # Checked here: each rank of the campaign would find the same slip, one after the other.
    run = absolute(load(config, overrides or ()))
    if not run.data.shards or not Path(run.data.shards).is_dir():
        raise ValueError(
            f"data.shards = {shown(run.data.shards)}: not a folder; give the one that `perceiver data build` wrote"
        )
    if keep is not None and keep.exists():
        raise ValueError(f"{keep}: exists; --keep needs a new folder")
    # The campaign wants a folder that is not there yet.
    folder = keep or Path(tempfile.mkdtemp()) / "campaign"
    command = ["train", str(config), *(overrides or ()), *(["--trust-code"] if trust_code else [])]
    campaign = Campaign(command, folder.resolve(), Path(run.data.shards), run.train.steps, procs, seed)
    with progress_bar("faults") as progress:
        result = campaign.run(faults, num_resizes=resizes, progress=progress)
    # What is kept of a failed campaign is what --keep is for.
    if keep is None:
        shutil.rmtree(folder.parent)
    _tell(result, as_json=as_json)
    raise typer.Exit(0 if result["survived"] == result["bit_equal"] == result["faults"] else 1)


def _tell(result: dict[str, object], *, as_json: bool) -> None:
    """Print a result as one JSON object, or a line a value."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for name, value in result.items():
        rows = value if isinstance(value, list) else [value]
        for row in rows:
            sys.stdout.write(printable(f"{name.replace('_', ' ')}: {row}") + "\n")
