"""The creation of a run's folder, or the check that an existing one holds the same run.

A kill at any moment leaves a run or none, and never a half of one:

    no folder       .perceiver-HOST-PID.new/ gets code, weights, config.yaml --> synced --> one rename to RUN/
    a mount point   RUN/.unfinished says whose it is; code, weights --> synced --> config.yaml last --> .unfinished goes
"""

import errno
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from configs import input_files
from configs.plugins import trust
from configs.resume import deciding
from configs.run import RunConfig, difference, dump, load
from data_shards.files import atomic
from data_shards.files.display import masked, printable
from data_shards.loading.shard_folders import Places
from launch.lifecycle.attempts import newest_step
from launch.lifecycle.fence import Fence
from launch.lifecycle.holder import refuse_if_trained
from launch.lifecycle.run_folder import UNPUBLISHED, RunFolder, as_typed
from launch.planning.activation_policy import planned
from launch.run import initial_weights, trained_parameters
from launch.run.frozen_code import (
    as_frozen,
    changed_files,
    copy_code,
    freeze,
    record_plugins,
    refuse_edited_copies,
    take_plugins,
)
from launch.run.loaders import check_evaluation, eval_split, label_names, open_eval_split, train_loader
from launch.run.trained import class_names
from launch.schedulers.submission import refuse_if_queued
from model.training.compilation import Compile, is_compiled
from trainer.checkpoint.names import newest
from trainer.distributed.world import World
from trainer.engine import arithmetic
from trainer.health.process import lives
from trainer.health.run_lock import RunLock
from trainer.sinks.writers import append_event


def open_run(
    config: RunConfig,
    folder: RunFolder,
    world_size: int = 1,
    device_type: str = "",
    *,
    more: Callable[[RunFolder], None] = lambda _: None,
    places: Places | None = None,
) -> None:
    """Make the run's folder, or check that the run in it is this one; ValueError with what differs.

    `device_type` is that of the ranks' devices; it is empty where nobody knows yet how many there will be of what, and
    their memory is left to the start. What is found of the shard folders is kept in `places`.

    A new run is there as a whole or not at all, with what `more` writes into it, and only once all that can be known
    of it before its first step is known. One that has not begun may still change, and of one that has whatever does not
    decide its result.
    """
    sources, has_begun, has_steps = config.plugins, False, False
    if folder.exists:
        folder.refuse_links_to_nothing()
        has_begun = _has_begun(folder)
        # Of a first batch that a plug-in could not make there is a checkpoint of step 0 alone.
        has_steps = has_begun and (newest_step(folder) > 0 or _has_trained(folder))
        if has_steps:
            refuse_edited_copies(folder, sources)
        take_plugins(folder, sources, has_begun=has_steps)
        config = _as_chosen(config, _kept(folder))
    config = as_frozen(config)
    changes = difference(_kept(folder), config) if folder.exists else []
    decisive = deciding(changes, stops_early=config.train.patience > 0)
    if has_begun and decisive:
        run, file = shlex.quote(str(folder.path)), shlex.quote(str(folder.config_path))
        raise ValueError(
            "\n  ".join(
                [
                    f"{folder.path}: holds a run with another configuration; resume that one "
                    f"(perceiver train {file} --run {run}), make a run with other values from "
                    f"where it is (perceiver fork {run} NEW key=value), or choose another --run folder:",
                    *decisive,
                ]
            )
        )
    places = places or Places(config.data)
    label_names(config, places)
    if folder.exists:
        folder.check_space()
    # A supervised rank is itself of the job that is queued.
    if not Fence.of(folder).is_supervised:
        refuse_if_queued(folder)
    if changes or not folder.exists:
        # Before anything is written: a corrected command is to find the folder as it was.
        _refuse_what_cannot_train(config, folder, world_size, device_type, places)
    if not folder.exists:
        _publish(config, folder, partial(_fill, config, places, sources, more))
        _tell_notes(config)
    elif changes:
        _change(config, folder, changes, places, has_begun=has_begun)
    # A copy that somebody removed; a run that is made has one already.
    freeze(folder.code_folder, plugins=sources)
    if not has_steps:
        # Its user may have edited the copy itself.
        record_plugins(folder)
    _tell_other_code(folder)


def with_choices(config: RunConfig, folder: RunFolder, world: World) -> RunConfig:
    """Return the configuration with what `auto` means for the run, which its first start chooses for good. Collective.

    Another device could choose otherwise, and a resumed run would not give the same bits.
    """
    precision, compiles = world.from_first(lambda: _frozen_choices(folder, world))
    return _with(config, precision, compiles)


def _frozen_choices(folder: RunFolder, world: World) -> tuple[str, Compile]:
    run = _kept(folder)
    precision = arithmetic.resolved(run.train, world.device.type).precision
    stage, is_ours = run.train.zero_stage, run.model.network is None
    compiles = is_ours and is_compiled(run.model.compile, world.device.type, zero_stage=stage)
    chosen = _with(run, precision, compiles)
    if chosen != run:
        _write_config(chosen, folder)
    return precision, compiles


def _kept(folder: RunFolder) -> RunConfig:
    """Return the configuration that a run keeps; its plug-ins are run, for it is to be trained."""
    trust(folder.path)
    return as_frozen(load(folder.config_path))


def _as_chosen(config: RunConfig, run: RunConfig) -> RunConfig:
    """Return the configuration with the choices of the run filled in where it says `auto`."""
    precision = run.train.precision if config.train.precision == "auto" else config.train.precision
    return _with(config, precision, run.model.compile if config.model.compile == "auto" else config.model.compile)


def _with(config: RunConfig, precision: str, compiles: Compile) -> RunConfig:
    train = replace(config.train, precision=precision)  # type: ignore[arg-type]  # of a RunConfig
    return replace(config, train=train, model=replace(config.model, compile=compiles))


def _refuse_what_cannot_train(
    config: RunConfig, folder: RunFolder, world_size: int, device_type: str, places: Places
) -> None:
    """Raise ValueError for all that the first step would meet, as far as it can be known without the other ranks."""
    check_evaluation(config, places)
    config.train.micro_batches_per_rank(world_size)
    if device_type:
        planned(config, world_size, device_type)
    trained_parameters.check(config)
    first = World(0, world_size, 0, torch.device("cpu"))
    # Threads begin with the first batch, processes would begin now.
    quick = replace(config, data=replace(config.data, num_processes=0))
    train_loader(quick, folder.quarantine_path, first, places).close()
    split, _ = eval_split(quick, places)
    if split:
        open_eval_split(quick, split, folder.quarantine_path, first, places).loader.close()


def _publish(config: RunConfig, folder: RunFolder, fill: Callable[[RunFolder], None]) -> None:
    """Make the whole run in a hidden folder beside its own; one rename publishes it."""
    try:
        if folder.path.is_dir():
            _publish_inside(config, folder, fill)
            return
        if folder.path.parent.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.path.parent)
        beside = RunFolder(folder.path.with_name(hidden_name(os.getpid())))
        # Of a process of the same id, some time ago.
        shutil.rmtree(beside.path, ignore_errors=True)
        try:
            fill(beside)
            _write_config(config, beside)
            atomic.publish(beside.path, folder.path)
        finally:
            shutil.rmtree(beside.path, ignore_errors=True)
    except OSError as error:
        if folder.exists:
            raise ValueError(f"{folder.path}: another start has just made this run; start again") from error
        raise ValueError(
            f"{folder.path}: cannot be written ({error.strerror}); choose another --run folder or correct its "
            "permissions"
        ) from error


def _publish_inside(config: RunConfig, folder: RunFolder, fill: Callable[[RunFolder], None]) -> None:
    """Make the run in a folder that is there, such as a mount point or one of an administrator's making.

    It cannot be replaced, so a mark says that what is in it is ours and not finished; config.yaml comes last.
    """
    folder.refuse_foreign()
    with RunLock(folder.unfinished_path):
        shutil.rmtree(folder.code_folder, ignore_errors=True)
        shutil.rmtree(folder.checkpoints_folder, ignore_errors=True)
        fill(folder)
        atomic.sync_tree(folder.path)
        _write_config(config, folder)
        folder.unfinished_path.unlink()


def _fill(
    config: RunConfig, places: Places, plugins: Sequence[str], more: Callable[[RunFolder], None], folder: RunFolder
) -> None:
    folder.make()
    # Synced once, with the whole: to sync 480 files costs a shared file system more than the rest of a start.
    copy_code(folder.code_folder, plugins=plugins)
    record_plugins(folder)
    input_files.keep(config, folder.path)
    class_names.keep(config, folder, places)
    more(folder)
    # A fork brings a checkpoint with it, whose weights are further on.
    if newest(folder.checkpoints_folder) is None:
        initial_weights.keep(config, folder)


def _write_config(config: RunConfig, folder: RunFolder) -> None:
    """Write what makes a folder a run, so that it is on the disk when this returns."""
    content = dump(config, as_kept=True)
    with atomic.beside(folder.config_path) as hidden:
        hidden.write_text(content)
        if masked(content) != content:
            # A restart needs the password in the URL; the others who may look into the run do not.
            hidden.chmod(0o600)


def hidden_name(pid: int | str) -> str:
    """Return the name of the folder in which a process of this host makes a run."""
    return f"{UNPUBLISHED}{socket.gethostname()}-{pid}.new"


def _remove_abandoned(parent: Path) -> None:
    """Remove what starts on this host left that were killed while they made a run here."""
    for left in parent.glob(hidden_name("*")):
        pid = left.name.removesuffix(".new").rpartition("-")[2]
        if not lives(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _has_begun(folder: RunFolder) -> bool:
    """Return whether a step was made, or there is a checkpoint to make one from."""
    return any(folder.checkpoints_folder.glob("step_*")) or _has_trained(folder)


def _has_trained(folder: RunFolder) -> bool:
    return folder.metrics_path.exists() and b'"kind": "train"' in folder.metrics_path.read_bytes()


def _change(config: RunConfig, folder: RunFolder, changes: list[str], places: Places, *, has_begun: bool) -> None:
    """Give another configuration to a run, and keep a record of it where the run has begun."""
    refuse_if_trained(folder)
    with RunLock(folder.lock_path):
        if has_begun:
            message = f"resumed with another configuration: {'; '.join(changes)}"
            append_event(folder.metrics_path, newest_step(folder), message)
        else:
            # It may list samples of other data.
            folder.quarantine_path.unlink(missing_ok=True)
            initial_weights.keep(config, folder)
            input_files.keep(config, folder.path)
            class_names.keep(config, folder, places)
        _write_config(config, folder)
    when = "resumes with the same result" if has_begun else "had not begun"
    sys.stderr.write("\n  ".join([f"note: {as_typed(folder.path)} {when}; it is changed:", *changes]) + "\n")


def _tell_notes(config: RunConfig) -> None:
    for name, section in config.data.ordered_inputs.items():
        for sentence in section.notes():
            sys.stderr.write(printable(f"note: data.inputs.{name}: {sentence}") + "\n")


def _tell_other_code(folder: RunFolder) -> None:
    changed = changed_files(folder.code_folder)
    if changed:
        sys.stderr.write(
            f"note: the code that runs differs from the run's own copy in {', '.join(changed[:5])}"
            f"{' and more' if len(changed) > 5 else ''}; to run that copy: cd {folder.code_folder} && "
            f"python -m launch train {folder.config_path} --run {folder.path}\n"
        )
