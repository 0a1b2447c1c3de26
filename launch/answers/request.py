"""What a user asks of predict and embed: checked before the work, and before a job is queued for it.

perceiver predict RUN FILES --cluster plain    check    submit    ...hours...    check    answer
perceiver predict RUN FILES                                                      check    answer
"""

from dataclasses import dataclass
from pathlib import Path

from configs.run import RunConfig
from data_shards.files.plugin_files import is_of_plugin
from data_shards.sources.prediction import new_samples
from launch.answers import tables, vectors
from launch.answers.parts import Parts
from launch.lifecycle.run_folder import refuse_unwritable
from launch.run.trained import latent_sizes
from launch.run.trained.network import check_weights
from model.outputs.label import LabelOutput, LabelsOutput
from trainer.checkpoint.choice import NEWEST


@dataclass(frozen=True)
class Asked:
    """The arguments of a command, as its user typed them."""

    run: Path
    """A run, or a folder that `perceiver import` wrote."""
    paths: tuple[str, ...]
    """Files, folders, tables and shard folders."""
    out: Path
    top: int = 1
    checkpoint: str = NEWEST
    weights: str = ""
    """Names the weights of the checkpoint, trained or ema; empty for those that the run evaluates."""
    split: str = ""
    """The split of shard folders; empty for the one that is evaluated."""
    batch: int = 0
    """Samples that are answered at once; 0 for those of the run."""
    latents: int = 0
    """How many of the first latents take part; 0 for all."""
    whole: bool = False
    """True if `embed` writes every latent; False if it writes their mean."""


def check(command: str, asked: Asked, config: RunConfig) -> None:
    """Raise ValueError for an option that cannot be followed, as far as that is known before any work."""
    {"predict": tables.refuse_other, "embed": vectors.refuse_other}[command](asked.out)
    Parts.refuse_taken(asked.out, beside(command, asked.out))
    refuse_unwritable(asked.out.parent, f"--out {asked.out} goes there", "choose another --out")
    _refuse_top(asked.top, config)
    if command == "embed" and config.model.network is not None:
        raise ValueError(f"{asked.run}: has a plug-in's network, and latents are a Perceiver's")
    if asked.latents:
        latent_sizes.chosen(config.model, str(asked.latents))
    check_weights(asked.run, config, asked.checkpoint, asked.weights)
    new_samples.refuse_absent(asked.paths, config.data, asked.split)


def beside(command: str, out: Path) -> tuple[Path, ...]:
    """Return what a command writes beside its file."""
    # Safetensors have their keys in the header.
    keys = (vectors.keys_path(out),) if out.suffix == ".npy" else ()
    return (*((files_folder(out),) if command == "predict" else keys), skipped_path(out))


def files_folder(out: Path) -> Path:
    """Return the folder of answers that are files."""
    # By the whole name: two commands at once may write answers.csv and answers.jsonl.
    return out.with_name(f"{out.name}.files")


def skipped_path(out: Path) -> Path:
    """Return the list of samples that could not be read."""
    return out.with_name(f"{out.name}.skipped.jsonl")


def _refuse_top(top: int, config: RunConfig) -> None:
    if top == 1:
        return
    outputs = config.model.answers().values()
    # The task of a plug-in may rank what it likes.
    if any(is_of_plugin(type(each)) for each in outputs):
        return
    # More than there are classes are all of them: a script may ask for five of every run.
    if not any(isinstance(each, LabelOutput | LabelsOutput) for each in outputs):
        raise ValueError(f"--top {top}: no output of the run answers with classes; leave it out")
