"""The loaders of a run, from its configuration and this rank."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.run import RunConfig
from data_shards.files.quoting import counted, shown
from data_shards.loading import streams
from data_shards.loading.loader.loader import Loader
from data_shards.loading.shard_folders import Places
from data_shards.modalities.kinds.label import LabelConfig
from launch.lifecycle.agreement import first_does, together
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.value import ValueOutput
from trainer.distributed.node import is_first_of_host
from trainer.distributed.world import World
from trainer.evaluation.evaluation import check_measurements, keys
from trainer.tasks.objective import objective


def absolute(config: RunConfig) -> RunConfig:
    """Return the configuration with its paths made absolute: a restart may run in another folder."""
    data = config.data
    datasets = {name: replace(part, shards=_absolute(part.shards)) for name, part in data.datasets.items()}
    remote = replace(data.remote, cache_folder=_absolute(data.remote.cache_folder))
    initial = replace(config.initial_weights, source=_absolute(config.initial_weights.source))
    data = replace(data, shards=_absolute(data.shards), datasets=datasets, remote=remote)
    return replace(config, data=data, initial_weights=initial)


def _absolute(path: str) -> str:
    return path if not path or "://" in path else str(Path(path).resolve())


def inputs_read(config: RunConfig) -> tuple[str, ...]:
    """Return the inputs of the data that the network reads, in order; others are compared with its answers."""
    return tuple(name for name in config.data.ordered_inputs if config.model.input_named(name) is not None)


def label_names(config: RunConfig, places: Places | None = None) -> tuple[str, ...]:
    """Return the class names of the shards; ValueError unless the network answers as many classes, of every label."""
    places = places or Places(config.data)
    # The shards decide: an order of classes of one's own would make old checkpoints answer wrongly.
    names = streams.label_names(config.data, places)
    num_classes = {"": len(names), **streams.named_classes(config.data, places)}
    for name, output in sorted(config.model.outputs.items()):
        if isinstance(output, LabelOutput | LabelsOutput):
            _check_classes(config.data.shards, name, output.num_classes, num_classes[output.target])
        if isinstance(output, LabelOutput) and not output.target:
            _check_one_label(config, places, name)
    _check_values(config, places)
    for name, section in config.data.ordered_inputs.items():
        # Those of a further label are checked sample by sample.
        if isinstance(section, LabelConfig) and not section.members and section.num_classes != len(names):
            raise ValueError(
                f"{config.data.shards}: has {counted(len(names), 'class')}, but data.inputs.{name}.num_classes = "
                f"{section.num_classes}; set it to {len(names)}"
            )
    return names


def _check_values(config: RunConfig, places: Places) -> None:
    """Raise ValueError where a network answers other numbers than the shards have."""
    there = streams.num_values(config.data, places)
    for name, output in config.model.answers().items():
        if isinstance(output, ValueOutput) and output.num_values != there[output.target]:
            found = there[output.target]
            raise ValueError(
                f"{config.data.shards}: value {shown(output.target)} has {counted(found, 'number')}, but "
                f"model.outputs.{name}.num_values = {output.num_values}; set it to {found}"
            )


def _check_one_label(config: RunConfig, places: Places, name: str) -> None:
    """Raise ValueError where a network of one class a sample would be trained without those that have several."""
    if not config.data.multi_label and (several := streams.with_several_labels(config.data, places)):
        raise ValueError(
            f"{several[0]}: samples have several labels, and a network that predicts one class cannot learn from them; "
            f"set data.multi_label=true and model.outputs.{name}.kind=labels"
        )


def _check_classes(shards: str, output: str, answered: int, there: int) -> None:
    if answered != there:
        raise ValueError(
            f"{shards}: has {counted(there, 'class')}, but model.outputs.{output}.num_classes = {answered}; set it to "
            f"{there}, or take the shards that the network was meant for"
        )


def train_loader(config: RunConfig, quarantine: Path, world: World, places: Places | None = None) -> Loader:
    """Return this rank's loader of the training split; bad samples are listed in the file `quarantine`."""
    # Everything that decides the order is passed here; threads, processes and caches come from the section `data`.
    return streams.train_loader(
        config.data,
        seed=config.seed,
        global_batch=config.train.global_batch,
        rank=world.rank,
        world_size=world.world_size,
        pinned=world.device.type == "cuda",
        quarantine=quarantine,
        places=places,
    )


def eval_split(config: RunConfig, places: Places | None = None) -> tuple[str, str]:
    """Return the split that is evaluated and a sentence about when; no split, and why, where nothing can be."""
    try:
        split = streams.eval_split(config.data, places)
    except ValueError as error:
        # A split that was named is meant; without a name, shards for training alone are as good as any.
        if config.data.eval_split:
            raise ValueError(
                f"data.eval_split = {shown(config.data.eval_split)}: {error}; name one that is there"
            ) from error
        return "", f"nothing is evaluated: {error}"
    every = config.train.evaluate_every_steps
    steps = "step" if every == 1 else f"{every} steps"
    when = f"every {steps} and at the end" if every else "at the end"
    seen = ", which is trained on too" if split == streams.TRAIN else ""
    averaged = ", with the moving average of the weights" if config.ema.evaluate else ""
    return split, f"split {shown(split)}{seen} is evaluated {when}{averaged}"


def check_evaluation(config: RunConfig, places: Places | None = None) -> None:
    """Raise ValueError where a run wants to keep its best checkpoint, and nothing says which that is.

    The task of a plug-in is asked for its metrics and its measurement, too: the first evaluation may come after the
    last step. PluginError where it has none.
    """
    split, sentence = eval_split(config, places)
    if config.checkpoint.keep_best and not split:
        raise ValueError(f"checkpoint.keep_best = true, but {sentence}; or set checkpoint.keep_best=false")
    goal = objective(config.model.answers())
    if split:
        check_measurements(goal)
    if decides := config.checkpoint.best_by:
        known = keys(goal, inputs_read(config))
        if decides not in known:
            raise ValueError(f"checkpoint.best_by = {decides!r}: expected one of {', '.join(known)}")


@dataclass(frozen=True)
class EvalSplit:
    """A split that is evaluated, opened."""

    name: str
    loader: Loader
    """It makes this rank's part of each batch."""
    num_batches: int
    """With data.clips the batches of all clips: so many in a row have the same samples."""


def open_eval_split(
    config: RunConfig, name: str, quarantine: Path, world: World, places: Places | None = None
) -> EvalSplit:
    """Return a split, opened on this rank; bad samples are listed in the file `quarantine`."""
    loader, num_batches = streams.eval_loader(
        config.data,
        name,
        global_batch=config.train.global_batch,
        rank=world.rank,
        world_size=world.world_size,
        pinned=world.device.type == "cuda",
        quarantine=quarantine,
        places=places,
    )
    return EvalSplit(name, loader, num_batches)


def identity(config: RunConfig, places: Places | None = None) -> dict[str, str | int]:
    """Return what decides the sample order. A run does not resume from a checkpoint with another identity."""
    seed, global_batch = config.seed, config.train.global_batch
    state = asdict(streams.data_state(config.data, seed=seed, global_batch=global_batch, places=places))
    # The step is the run's own.
    return {name: value for name, value in state.items() if name != "step"}


def look(config: RunConfig, places: Places) -> None:
    """Look at all that the run reads of its shard folders; ValueError says what cannot serve it."""
    streams.train_datasets(config.data, places)
    split, _ = eval_split(config, places)
    if split:
        places.at(config.data.shards).served(split, config.data.required_members)


def places_of_all(config: RunConfig, world: World, places: Places, look: Callable[[Places], object]) -> Places:
    """Return what `look` finds in the shard folders, on rank 0; one rank of each other host checks it. Collective.

    If every rank looked, the shared disk would be asked for every shard by every rank: with 80 shards, 80 lstats and 4
    reads of the manifest each.
    """
    first_does(world, lambda: look(places))
    told = world.broadcast(places.found if world.is_first else {})
    known = places if world.is_first else Places(config.data, told)
    is_first_here = is_first_of_host(world)
    # Another host may read a copy of its own, which lacks a shard or is an older one.
    together(world, known.check_here if is_first_here and not world.is_first else lambda: None)
    return known
