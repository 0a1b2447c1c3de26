"""Whether a run can be evaluated on other shards than its own: its network must answer what they hold."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from configs.run import RunConfig
from data_shards.files.display import masked
from data_shards.files.quoting import listed, shown
from data_shards.format.manifest import Manifest
from data_shards.loading import streams
from data_shards.loading.dataset import are_numbers, inputs_in
from data_shards.loading.shard_folders import Places
from launch.run.trained import class_names
from launch.run.trained.network import config_of, is_import
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.value import ValueOutput

_NUM_TRIED = 4
"""So many samples that cannot be read, the first ones of a split, are no accident."""


def refuse_other(path: Path, config: RunConfig, split: str, places: Places) -> None:
    """Raise ValueError for what of the shards in a configuration the network of a run cannot be compared with."""
    where = masked(config.data.shards)
    shards = places.at(config.data.shards).manifest()
    names = {} if is_import(path) else class_names.of(path, config_of(path))[0]
    problems = [*_inputs(config, shards, split), *_labels(config, shards, names), *_values(config, shards)]
    if problems:
        raise ValueError(
            f"{where}: {'; '.join(problems)}; build them again with the inputs and targets of the run; or answer them "
            "without a comparison, by `perceiver predict`; or train a run on them from these weights, by "
            "initial_weights.source"
        )
    if fault := _fault_of_first(config, split, places):
        raise ValueError(
            f"{where}: the first samples of split {shown(split)} are not what the run reads ({fault}); build them "
            "again as the run's data are, or name other members of theirs by data.inputs.NAME.members=SUFFIX"
        )


def _inputs(config: RunConfig, shards: Manifest, split: str) -> Iterator[str]:
    there = inputs_in(shards.split(split), config.data)
    suffixes = [f".{suffix}" for suffix, _ in shards.split(split).shards.suffixes.most_common()]
    for name, section in config.data.ordered_inputs.items():
        if name not in there:
            reads = ", ".join(f".{pattern}" for pattern in section.patterns)
            yield (
                f"no sample of split {shown(split)} has the input {name} ({section.modality}, {reads}), only "
                f"{listed(suffixes)}, which data.inputs.{name}.members=SUFFIX would name"
            )


def _labels(config: RunConfig, shards: Manifest, known: dict[str, tuple[str, ...]]) -> Iterator[str]:
    there = {"": shards.label_names, **shards.named_labels}
    for name, output in config.model.answers().items():
        if not isinstance(output, LabelOutput | LabelsOutput):
            continue
        title = f"label {shown(output.target)}" if output.target else "label"
        theirs, ours = there.get(output.target, ()), known.get(output.target, ())
        if not theirs:
            others = listed([*shards.named_labels]) or "none"
            yield f"has no {title}, which output {name} is compared with (labels by name: {others})"
        elif len(theirs) != output.num_classes or not _are_same(theirs, ours):
            yield f"its {title} has other classes than output {name} ({_difference(theirs, ours, output.num_classes)})"
        elif isinstance(output, LabelOutput) and not output.target and _has_several(config, shards):
            yield f"its samples have several labels, and output {name} answers one"


def _are_same(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Return whether classes are the same ones; shards that were adopted have numbers for names, which say nothing."""
    return not ours or tuple(theirs) == tuple(ours) or are_numbers(theirs) or are_numbers(ours)


def _difference(theirs: Sequence[str], ours: Sequence[str], num_classes: int) -> str:
    if _are_same(theirs, ours):
        return f"{len(theirs)} there, {num_classes} in the run"
    only_there, only_here = ([name for name in a if name not in b] for a, b in ((theirs, ours), (ours, theirs)))
    if not only_there and not only_here:
        return f"in another order: {listed(theirs)} there, {listed(ours)} in the run"
    return f"only there: {listed(only_there) or 'none'}; only in the run: {listed(only_here) or 'none'}"


def _has_several(config: RunConfig, shards: Manifest) -> bool:
    # A sample is counted once for each of its labels.
    return not config.data.multi_label and any(sum(of.label_counts) > of.num_samples for of in shards.splits.values())


def _values(config: RunConfig, shards: Manifest) -> Iterator[str]:
    for name, output in config.model.answers().items():
        if not isinstance(output, ValueOutput):
            continue
        found = shards.values.get(output.target)
        if found is None:
            others = listed([*shards.values]) or "none"
            yield f"has no value {shown(output.target)}, which output {name} is compared with (values: {others})"
        elif found != output.num_values:
            yield f"its value {shown(output.target)} has {found} numbers, and output {name} answers {output.num_values}"


def _fault_of_first(config: RunConfig, split: str, places: Places) -> str:
    """Return why the first samples of a split cannot be read; nothing where one of them can."""
    # One at a time: the next ones are not worth a thread for each.
    data = replace(config.data, num_processes=0, num_threads=1, prefetch_batches=1)
    fault = ""
    loader, num_steps = streams.eval_loader(data, split, global_batch=1, places=places)
    with loader:
        # A batch comes once for each of its clips, one after the other: the first clip is enough.
        for step in islice(range(0, num_steps, data.num_clips), _NUM_TRIED):
            try:
                loader(step)
            except ValueError as error:
                fault = fault or str(error)
            else:
                return ""
    return fault
