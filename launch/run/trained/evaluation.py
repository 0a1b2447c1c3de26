"""`perceiver eval`: a checkpoint on a split that was not trained on, and the pictures of the run."""

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xxhash

from configs.run import RunConfig
from data_shards.config import DataConfig
from data_shards.files import atomic
from data_shards.files.display import masked, printable
from data_shards.files.history import tell
from data_shards.files.quoting import counted
from data_shards.loading import streams
from data_shards.loading.batch import Batch
from data_shards.loading.loader.loader import Loader
from data_shards.loading.shard_folders import Places
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.catalogue import plugins
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.modality import Modality
from launch.lifecycle.agreement import batches_of_all, first_does, joined, together
from launch.lifecycle.run_folder import RunFolder, as_typed, refuse_unwritable
from launch.pictures import drawing, texts
from launch.run.loaders import EvalSplit, inputs_read, label_names, open_eval_split, places_of_all
from launch.run.trained import latent_sizes, other_data
from launch.run.trained.network import Trained, check_weights, config_of, trained
from model.network import AnyNetwork
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from trainer.checkpoint.choice import NEWEST
from trainer.distributed.world import World
from trainer.ema_config import EMA
from trainer.evaluation.evaluation import ALL, Evaluation, Value, evaluate
from trainer.evaluation.inference import predictions, reconstructions
from trainer.tasks.objective import objective

NUM_PICTURED, NUM_DRAWN = 32, 8
_LONGEST_NAME = 80


def main(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    which: str = NEWEST,
    weights: str = "",
    split: str = "",
    latents: str = "",
    as_json: bool = False,
) -> int:
    """Evaluate a checkpoint of a run, chosen as in trainer/checkpoint/choice.py; return the exit status. Collective.

    `overrides` name other data. The path may be that of an imported network. Results on other data than the run's are
    kept in a folder of their own. `latents` names one of the sizes of a network with nested latents, or all of them.
    """
    config = config_of(path, overrides)
    folder = _results(path, config, overrides)
    world = joined(config.train.collective_timeout_seconds)
    data = replace(config.data, eval_split=split or config.data.eval_split)
    places = Places(data)
    options = {"which": which, "weights": weights, "split": split, "latents": latents}
    first_does(world, lambda: check(path, overrides, **options, places=places))
    sizes = latent_sizes.chosen(config.model, latents) if latents else ()
    places = places_of_all(config, world, places, partial(_look, data))
    name = streams.eval_split(data, places)
    evaluated = together(world, lambda: open_eval_split(config, name, folder.quarantine_path, world, places))
    loader = evaluated.loader
    chosen = together(world, lambda: trained(path, config, which, world, weights))
    network = chosen.network
    if world.is_first:
        for sentence in chosen.notes:
            tell(sentence)
    # Before the evaluation: a folder that takes no file is refused now, not after all samples were judged.
    first_does(world, lambda: folder.pictures_folder.mkdir(parents=True, exist_ok=True))
    with loader:
        judge = partial(_judged, config, evaluated, world)
        if latents == latent_sizes.ALL_SIZES:
            batch = batches_of_all(world, loader)(0).to(world.device)
            found_sizes = latent_sizes.measured(network, batch, judge, sizes)
            if world.is_first:
                latent_sizes.report(folder, chosen.step, evaluated.name, found_sizes, as_json=as_json)
                for sentence in found_sizes[0].evaluation.cuts.sentences(config.data):
                    tell(sentence)
            world.close()
            return 0
        network = latent_sizes.cut(network, *sizes) if sizes else network
        found = judge(network)
        if world.is_first:
            others = {"shards": masked(config.data.shards)} if overrides else {}
            result = {
                "step": chosen.step,
                "weights": chosen.weights,
                "split": evaluated.name,
                **({"latents": sizes[0]} if sizes else {}),
                **others,
                **found.as_json(),
            }
            for sentence in loader.left_out:
                tell(sentence)
            # Before the pictures: whatever becomes of them, the numbers are kept.
            atomic.write(folder.evaluation_path, json.dumps(result) + "\n")
            _draw(config, folder, network, loader, world, found)
            if as_json:
                sys.stdout.write(json.dumps(result) + "\n")
            else:
                _tell(folder, chosen, evaluated.name, found, found.cuts.sentences(config.data))
    world.close()
    return 0


def check(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    which: str = NEWEST,
    weights: str = "",
    split: str = "",
    latents: str = "",
    places: Places | None = None,
) -> None:
    """Raise ValueError for what cannot be followed, as far as that is known before any work; `main` says what it is.

    Without `places`, shards at a URL are not asked for: another machine may have the right to read them.
    """
    config = config_of(path, overrides)
    # Before the shards are looked at: a size that the network is not trained for costs nothing to refuse.
    if latents:
        latent_sizes.chosen(config.model, latents)
    if places is not None or "://" not in config.data.shards:
        data = replace(config.data, eval_split=split or config.data.eval_split)
        places = places or Places(data)
        _look(data, places)
        if overrides:
            other_data.refuse_other(path, config, streams.eval_split(data, places), places)
    check_weights(path, config, which, weights)
    refuse_unwritable(_results(path, config, overrides).path, "the results go there", "evaluate a copy of the run")


def _judged(config: RunConfig, evaluated: EvalSplit, world: World, network: AnyNetwork) -> Evaluation:
    batches = map(batches_of_all(world, evaluated.loader), range(evaluated.num_batches))
    goal, num_clips = objective(config.model.answers()), config.data.num_clips
    return evaluate(network, goal, batches, world, inputs_read(config), num_clips=num_clips)


def _results(path: Path, config: RunConfig, overrides: Sequence[str]) -> RunFolder:
    """Return the folder that the results go to: the run's own, unless other data are evaluated."""
    folder = RunFolder(path.resolve())
    if not overrides:
        return folder
    # Readable, and another one for other data: what is kept of the run, or of other data, stays.
    name = re.sub(r"[^\w.-]", "_", config.data.shards.rstrip("/").rpartition("/")[2])[:_LONGEST_NAME]
    # Two folders of one name, or one with two crops, are two results.
    key = xxhash.xxh3_64(repr((config.data.shards, sorted(overrides))).encode()).hexdigest()
    return folder.of_evaluation(f"{name}-{key[:8]}")


def _look(data: DataConfig, places: Places) -> None:
    """Look at the split that is evaluated; ValueError says why it cannot serve."""
    places.at(data.shards).served(streams.eval_split(data, places), data.required_members)


def _draw(
    config: RunConfig, folder: RunFolder, network: AnyNetwork, loader: Loader, world: World, found: Evaluation
) -> None:
    if folder.metrics_path.exists():
        first = found.values[0]
        drawing.loss_curve(folder.metrics_path, folder.pictures_folder / "loss.png", first.output, first.metric)
    # The first batch again: the evaluation has gone through all of them.
    batch = loader(0)
    _draw_predictions(config, folder, network, batch, world)
    _write_texts(config, folder, network, batch, world)
    goal = objective(config.model.answers())
    on_device = batch.to(world.device)
    for name, (truth, drawn) in reconstructions(network, goal, on_device).items():
        out, task = folder.pictures_folder / f"reconstructed_{name}.png", goal.tasks[name]
        there = _with_input(batch, task.output.target)
        if not len(there):
            continue
        seen = task.seen(on_device)
        drawing.reconstructions(
            truth.cpu().numpy()[there],
            drawn.cpu().numpy()[there],
            out,
            seen=None if seen is None else seen.cpu().numpy()[there],
            num_entries=config.data.inputs[task.output.target].shape[0],
            is_unit=task.shows_unit_range,
        )
    for name, tables in found.tables.items():
        if counts := tables.get("confusion"):
            # They are of the sample's own label; the classes of another one are drawn by their numbers.
            names = label_names(config) if not config.model.answers()[name].target else ()
            drawing.confusion(np.array(counts), names, folder.pictures_folder / f"confusion_{name}.png")


def _with_input(batch: Batch, name: str) -> list[int]:
    """Return the places of a batch's samples that have an input; without a key a slot only fills the batch."""
    return [place for place, key in enumerate(batch.keys) if key and batch.lengths[name][place] > 0]


def _draw_predictions(config: RunConfig, folder: RunFolder, network: AnyNetwork, batch: Batch, world: World) -> None:
    """Draw images, and arrays of numbers, with the classes that are predicted where there are any."""
    inputs = config.data.ordered_inputs.items()
    images = [name for name, section in inputs if isinstance(section, ImageConfig)] if _label_of(config) else []
    # The captions are of the sample as a whole: one picture of it is enough, however many it has.
    for name in (*images[:1], *(name for name, section in inputs if _is_of_numbers(section))):
        arrays, truths, guesses = _captioned(config, network, batch, world, name)
        if arrays and name in images:
            most, is_unit = slice(NUM_PICTURED), config.data.inputs[name].values != "raw"
            out = folder.pictures_folder / "predictions.png"
            drawing.predictions(np.stack(arrays[most]), truths[most], guesses[most], out, is_unit=is_unit)
        elif arrays:
            most, out = slice(NUM_DRAWN), folder.pictures_folder / f"inputs_{name}.png"
            drawing.arrays(arrays[most], truths[most], guesses[most], out)


def _label_of(config: RunConfig) -> str:
    """Return the output that predicts the sample's own label; empty where none does."""
    outputs = config.model.outputs.items()
    return next((name for name, of in outputs if isinstance(of, LabelOutput) and not of.target), "")


def _captioned(
    config: RunConfig, network: AnyNetwork, batch: Batch, world: World, name: str
) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Return arrays of an input with their true and predicted classes; where none are predicted both are the keys."""
    if output := _label_of(config):
        names, rows = label_names(config), list(_pictured(network, batch, world, output, name))
        truths, guesses = [names[truth] for _, truth, _ in rows], [names[guess] for _, _, guess in rows]
        return [array for array, _, _ in rows], truths, guesses
    places = _with_input(batch, name)
    keys = [batch.keys[place] for place in places]
    return [batch.arrays[name][place].numpy() for place in places], keys, keys


def _is_of_numbers(section: Modality) -> bool:
    """Return whether its arrays are drawn as numbers: those of sound, arrays, and modalities of a plug-in."""
    return isinstance(section, ArrayConfig | AudioConfig) or section.modality in plugins()


def _write_texts(config: RunConfig, folder: RunFolder, network: AnyNetwork, batch: Batch, world: World) -> None:
    """Write texts with their hidden words, and with what is answered there."""
    for name, output in config.model.answers().items():
        section = config.data.inputs.get(output.target)
        if isinstance(output, TextOutput) and isinstance(section, TextConfig):
            guesses = predictions(network, batch.to(world.device), name)
            lines = texts.filled_in(section, output.target, batch, guesses)
            atomic.write(folder.pictures_folder / f"filled_in_{name}.txt", "".join(f"{line}\n" for line in lines))


def _pictured(
    network: AnyNetwork, batch: Batch, world: World, output: str, name: str
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield the arrays of an input with the true class and the predicted one, of samples that have both."""
    guesses = predictions(network, batch.to(world.device), output).cpu()
    # Without a key a slot only fills the batch.
    shown = (batch.lengths[name] > 0) & (batch.labels >= 0) & torch.tensor([key != "" for key in batch.keys])
    for index in torch.nonzero(shown).flatten().tolist():
        yield batch.arrays[name][index].numpy(), int(batch.labels[index]), int(guesses[index])


def _tell(folder: RunFolder, chosen: Trained, split: str, found: Evaluation, notes: Sequence[str] = ()) -> None:
    averaged = ", moving average of the weights" if chosen.weights == EMA else ""
    sys.stdout.write(f"step {chosen.step}{averaged}, {counted(found.samples, f'{printable(split)} sample')}\n")
    # Each metric of each output once, and again for each input alone.
    lines = {_title(value): value.words for value in found.values}
    width = max(20, *map(len, lines))
    sys.stdout.writelines(printable(f"  {title:<{width}} {words:>8}") + "\n" for title, words in lines.items())
    sys.stdout.writelines(printable(f"  {sentence}") + "\n" for sentence in (*found.faults(), *notes))
    sys.stdout.write(f"pictures: {as_typed(folder.pictures_folder)}\n")
    if folder.tensorboard_folder.exists():
        sys.stdout.write(f"curves: tensorboard --logdir {shlex.quote(as_typed(folder.tensorboard_folder))}\n")


def _title(value: Value) -> str:
    title = f"{value.output}: {value.metric.name.replace('_', ' ')}"
    return title if value.shown == ALL else f"{title}, {value.shown} alone"
