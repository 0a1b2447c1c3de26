"""`perceiver fork` and `perceiver diff`: a new run from a checkpoint of another, and the differences of two runs."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from configs.files import read_yaml
from configs.resume import other_meaning
from configs.run import RunConfig, difference, differing, load
from data_shards.files import atomic
from data_shards.files.display import printable
from data_shards.files.history import tell
from data_shards.files.quoting import counted
from launch.lifecycle.run_folder import RunFolder, as_typed, existing
from launch.run import origin
from launch.run.creation import open_run
from launch.run.frozen_code import changed_files, unlike_record
from launch.run.loaders import absolute, identity
from launch.run.origin import Origin
from model.custom import new_network
from model.transfer import other_frequencies, table_grids
from trainer.checkpoint import layout
from trainer.checkpoint.choice import NEWEST, first_readable
from trainer.checkpoint.manifest import Manifest, read_whole
from trainer.checkpoint.names import committed, step_of
from trainer.distributed.world import World
from trainer.optim.groups import treatments
from trainer.optimizer_choice import ADAMW, LAMB
from trainer.run_state import RunState


def fork(path: Path, new_path: Path, overrides: Sequence[str], which: str = NEWEST) -> int:
    """Make a run with another's checkpoint and another configuration; return the exit status."""
    old, new = existing(RunFolder(path.resolve())), RunFolder(new_path.resolve())
    if new.exists:
        raise ValueError(f"{new.path}: holds a run already; choose another folder")
    # Without the overrides: both are compared, and the difference is printed.
    before = load(old.config_path)
    # After it: the plug-ins in use are those of what was read last.
    config = absolute(load(old.config_path, overrides))
    changes = difference(before, config)
    other_code = unlike_record(old, config.plugins)
    source, state = _checked(old, before, config, which, changes) or (None, RunState())

    def with_checkpoint(made: RunFolder) -> None:
        if source is not None:
            _share(source, made.checkpoints_folder / source.name)
            origin.keep(Origin(str(old.path), state.step, state.skipped_steps), made)

    open_run(config, new, more=with_checkpoint)
    for file in other_code:
        sys.stderr.write(f"note: {printable(file)}: other code than {as_typed(old.path)} began with\n")
    step = state.step
    sys.stdout.write(f"{as_typed(new.path)}: starts from step {step} of {as_typed(old.path)}\n")
    for line in changes:
        sys.stdout.write(f"  {line}\n")
    if config.ema.decay and any(line.startswith("ema.decay:") for line in changes):
        sys.stdout.write(f"the moving average of the weights begins anew at step {step}\n")
    run = as_typed(new.path)
    sys.stdout.write(
        f"train it: perceiver train {run}/config.yaml --run {run}, or on Slurm: perceiver resume {run} --cluster ...\n"
    )
    return 0


def diff(one: Path, other: Path) -> int:
    """Print the values and the code files in which two runs differ; return 0 if there are none, else 1."""
    first, second = existing(RunFolder(one.resolve())), existing(RunFolder(other.resolve()))
    lines = differing(read_yaml(first.config_path), read_yaml(second.config_path))
    files = [f"code/{name}" for name in changed_files(first.code_folder, second.code_folder)]
    for line in [*lines, *files]:
        sys.stdout.write(f"{line}\n")
    return 1 if lines or files else 0


def _checked(
    old: RunFolder, before: RunConfig, config: RunConfig, which: str, changes: Sequence[str]
) -> tuple[Path, RunState] | None:
    """Return the checkpoint to start from with its state, None if there is none yet; ValueError if it cannot serve."""
    if not committed(old.checkpoints_folder) and which == NEWEST:
        return None
    # A world of one, without a process group of torch's: to copy files none is needed.
    alone = World(0, 1, 0, torch.device("cpu"))
    path, manifest, passed_over = first_readable(old.checkpoints_folder, which, alone, read_whole)
    for sentence in passed_over:
        tell(f"skipped a damaged checkpoint: {sentence}")
    # All that can be wrong is found before a folder is made.
    other_data = layout.other_data(manifest.identity, identity(config))
    problem = (
        other_data
        or _other_network(config, path, manifest)
        or _other_meaning(changes)
        or _other_frequencies(before, config)
        or _other_grid(before, config)
        or _other_optimizer(before, config)
        or _other_past(before, config, step_of(path))
        or _too_late(config, path, manifest)
    )
    if problem:
        changed = "".join(f"\n  {line}" for line in changes)
        told = f". What was changed:{changed}" if changed else ""
        raise ValueError(
            f"{path}: {problem}; leave it as it was (a fork can have more steps, another rate or "
            "evaluation), or train a new run with it, which may take the weights that fit "
            f"(initial_weights.source={as_typed(old.path)}){told}"
        )
    return path, manifest.state


def _other_network(config: RunConfig, path: Path, manifest: Manifest) -> str:
    with torch.device("meta"):  # shapes alone
        network = new_network(config.model, seed=0)
    here = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = layout.difference(layout.shapes(path, manifest), here)
    return f"has the weights of another network than `model` describes: {found}" if found else ""


def _other_meaning(changes: Sequence[str]) -> str:
    """Return why weights that fit would be noise in the new network."""
    keys = other_meaning(changes)
    return f"its weights were learned with another {', '.join(keys)} and fit by their shapes alone" if keys else ""


def _other_frequencies(old: RunConfig, new: RunConfig) -> str:
    """Return why the same weights would read other Fourier features."""
    found = other_frequencies(old.model, new.model)
    keys = [f"{key}={list(there)}, not {list(here)}" for key, (there, here) in found.items()]
    return f"its weights were learned with {', and with '.join(keys)}, which the key itself would keep" if keys else ""


def _other_grid(old: RunConfig, new: RunConfig) -> str:
    """Return why rows of a table would stand for other places, although there are as many of them."""
    with torch.device("meta"):  # shapes alone
        before, after = (table_grids(new_network(each.model, seed=0)) for each in (old, new))
    name = next((name for name, grid in after.items() if before.get(name, grid) != grid), "")
    return f"has {name} for a grid of {before[name]}, not of {after[name]}" if name else ""


def _other_optimizer(old: RunConfig, new: RunConfig) -> str:
    """Return why the state of the optimizer would be lost."""
    # A state has the names that its optimizer gave it.
    there, here = old.optimizer.name, new.optimizer.name
    # These two have the same moments.
    is_kept = there == here or {there, here} <= {ADAMW, LAMB}
    return "" if is_kept else f"has the state of {there}, which optimizer.name={here} cannot use"


def _other_past(old: RunConfig, new: RunConfig, step: int) -> str:
    """Return why the optimizer has not the state that it would have had the new run come here by itself."""
    with torch.device("meta"):  # names alone
        network = new_network(new.model, seed=0)
    before, after = treatments(network, old.optimizer), treatments(network, new.optimizer)
    others = [name for name in after if before[name].trained_at(step) != after[name].trained_at(step)]
    if not others:
        return ""
    were = f" and {len(others) - 1} more were" if len(others) > 1 else " was"
    return f"has no moments for the other optimizer.freeze: {others[0]}{were} trained otherwise until here"


def _too_late(config: RunConfig, path: Path, manifest: Manifest) -> str:
    """Return why the new run would be over before it begins."""
    step, end = step_of(path), config.train.steps
    if step > end:
        return f"is of step {step}, after the end of the new run at train.steps={end}"
    stalled, patience = manifest.state.improvement.since_best, config.train.patience
    if 0 < patience <= stalled:
        evaluations = counted(stalled, "evaluation")
        return f"has {evaluations} without a better value, which end a run with train.patience={patience}"
    return ""


def _share(checkpoint: Path, target: Path) -> None:
    """Give the new run the checkpoint. Both share the bytes, which are never changed."""
    beside = target.with_name(f".{target.name}.tmp")
    # When one of the runs deletes a checkpoint, it takes its own name of each file away, and not the other's.
    shutil.copytree(checkpoint, beside, copy_function=_link)
    atomic.publish(beside, target)


def _link(source: str, target: str) -> None:
    try:
        # Hard links do not cross file systems, and some file systems have none.
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
