"""`perceiver init`: a commented configuration that is sized to what shards hold, to train as it is and to change."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_shards.building.inspection.spread_samples import Members, spread
from data_shards.config import DataConfig
from data_shards.files.display import printable
from data_shards.files.quoting import counted, listed, shown
from data_shards.format import manifest
from data_shards.format.annotations import NO_LABEL, Notes, Records, notes
from data_shards.format.manifest import Manifest
from data_shards.format.members import fitting
from data_shards.loading.streams import EVALUATED, TRAIN, train_datasets
from data_shards.modalities.kinds.catalogue import BY_NAME
from data_shards.modalities.modality import Modality
from launch.planning.fitted_inputs import fitted, section_of
from launch.planning.found_inputs import found_inputs, numbers_in_records, unread_in_records, usable
from model.modalities import catalogue as networks

NUM_SAMPLES = 64
"""Samples that are read to find the sizes."""
EPOCHS = 20
MIN_STEPS, MAX_STEPS = 200, 100_000
MAX_BATCH, MAX_LANES = 64, 8
_MASKED = ("image", "video", "audio", "array")
"""Modalities whose hidden patches can be predicted where nothing else is there to predict."""


@dataclass
class _Found:
    """The parts of the configuration."""

    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The section of each input in the data."""
    model: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The section of each input in the network."""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    targets: dict[str, Any] = field(default_factory=dict)
    """Keys of the data that make targets."""
    remarks: list[str] = field(default_factory=list)


def starting_config(folder: Path, run: str = "runs/first", tokenizer: str = "") -> str:
    """Return the text of a configuration that trains on a shard folder as it is; ValueError says why none can be.

    Texts are read as the tokens of a tokenizer.json where one is given, else as bytes.
    """
    shards = manifest.read(folder)
    if TRAIN not in shards.splits or not shards.splits[TRAIN].num_samples:
        raise ValueError(
            f"{folder}: has no split {TRAIN}, which a run trains on; it has {listed(sorted(shards.splits))}; build "
            f"the shards with samples of a split {TRAIN}, or rename the folder of their tars to it and index them again"
        )
    # From all over the shards, since neighbours in a shard are often of one class.
    samples = [members for _, members in spread(folder, shards.splits[TRAIN].shards, NUM_SAMPLES)]
    found = _Found()
    _add_inputs(found, samples, tokenizer)
    if tokenizer and not any(keys["modality"] == "text" for keys in found.data.values()):
        raise ValueError(f"--tokenizer {tokenizer}: {folder} has no text that could be read with it; leave it out")
    _tell_of_records(found, samples, shards.records)
    if not found.data:
        raise ValueError(f"{folder}: holds nothing that a network reads; {'; '.join(found.remarks) or 'no members'}")
    _add_outputs(found, shards, samples)
    if not found.outputs:
        raise ValueError(
            f"{folder}: has no labels and no values, and nothing of {', '.join(found.data)} can be hidden and "
            "predicted; build the shards with a column label or value.NAME"
        )
    _refuse_what_no_run_takes(folder, found)
    return "\n".join(_lines(folder, run, shards, len(samples), found)) + "\n"


def _tell_of_records(found: _Found, samples: Sequence[Members], records: Records) -> None:
    """Remark on the fields of the samples' records that are no targets and no inputs."""
    numbers = numbers_in_records(samples) if not records.values else []
    if numbers:
        found.remarks.append(
            f"numbers of the records, {listed(numbers)}: no targets; "
            "`perceiver data index FOLDER --values-from .` makes them values"
        )
    if others := unread_in_records(samples, asdict(records).values()):
        found.remarks.append(f"fields of the records, {listed(others)}: not read")


def _refuse_what_no_run_takes(folder: Path, found: _Found) -> None:
    """Raise ValueError for the first reason for which training would be refused, such as a class without samples."""
    inputs = {name: section_of(keys) for name, keys in found.data.items()}
    targets: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in found.targets.items()
    }
    config = DataConfig(shards=str(folder), inputs=inputs, **targets)
    for key, sentence in config.problems():
        raise ValueError(f"{folder}: data.{key} {sentence}")
    train_datasets(config)


def _add_inputs(found: _Found, samples: Sequence[Members], tokenizer: str) -> None:
    """Find each input with its sizes, in the data and in the network."""
    there = {suffix for members in samples for suffix in members}
    taken: set[tuple[str, str]] = set()
    for name, section in sorted(found_inputs(samples), key=_place):
        read = set(fitting(section.patterns, there))
        # An array that is read as a cloud is not read once more.
        if read <= taken:
            continue
        full, reasons = fitted(section, samples, {suffix for suffix, _ in read}, tokenizer)
        if full is None:
            found.remarks.append(f"{name} is left out: {'; '.join(reasons)}")
            continue
        taken |= read
        own = networks.BY_NAME[full["modality"]]()
        # As the section says it, lists and all: what is written is what was tried.
        name = name if section.members or full["modality"] in found.data else full["modality"]
        found.data[name] = full
        found.model[name] = own.with_sizes(section_of(full).sizes).fitted()


def _place(named: tuple[str, Modality]) -> tuple[int, str]:
    """Return where the modality of an input stands among all: of two that read a suffix the first is meant."""
    return list(BY_NAME).index(named[1].modality), named[0]


def _add_outputs(found: _Found, shards: Manifest, samples: Sequence[Members]) -> None:
    """Find what there is to predict: motion, labels, values, else what is hidden of an input."""
    pairs = [name for name, keys in found.data.items() if keys["modality"] == "flow"]
    if pairs:
        # Its queries are the tokens of the pair, and of nothing else.
        others = [name for name in found.data if name != pairs[0]]
        if others:
            found.remarks.append(f"{listed(others)} beside the pairs of frames: left out")
        found.data, found.model = {pairs[0]: found.data[pairs[0]]}, {pairs[0]: found.model[pairs[0]]}
        found.outputs[pairs[0]] = {"kind": "flow"}
        return
    known = [_notes(members, shards) for members in samples]
    if _is_told_apart(found, "label", shards.label_names):
        # One sample with several labels is enough: a softmax could not learn them.
        is_several = any(each.label == NO_LABEL and each.labels for each in known)
        found.outputs["label"] = {"kind": "labels" if is_several else "label", "num_classes": len(shards.label_names)}
        if is_several:
            found.targets["multi_label"] = True
    for name, classes in sorted(shards.named_labels.items()):
        if _is_told_apart(found, name, classes):
            found.outputs[usable(name)] = {"kind": "label", "target": name, "num_classes": len(classes)}
            found.targets.setdefault("labels", []).append(name)
    for name, count in shards.values.items():
        found.outputs[usable(name)] = {
            "kind": "value",
            **({"target": name} if usable(name) != name else {}),
            "num_values": count,
            **_unit([each.values.get(name, ()) for each in known]),
        }
        found.targets.setdefault("values", []).append(name)
    if not found.outputs:
        _add_hidden(found)


def _is_told_apart(found: _Found, name: str, classes: Sequence[str]) -> bool:
    """Return whether there are several classes: of one alone nothing can be learned."""
    if len(classes) == 1:
        found.remarks.append(f"{name} is left out: it has the class {shown(classes[0])} alone")
    return len(classes) > 1


def _notes(members: Members, shards: Manifest) -> Notes:
    try:
        return notes(members, shards.records)
    except ValueError:
        # A bad sample, which the run will count.
        return Notes(NO_LABEL)


def _unit(numbers: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return offset and scale of a value: mean and standard deviation of the numbers that are known."""
    known = [number for several in numbers for number in several if math.isfinite(number)]
    # In units of its spread the loss of any value begins near 1, whether it counts grams or tons.
    mean = math.fsum(known) / len(known) if known else 0.0
    spread_of = math.sqrt(math.fsum((number - mean) ** 2 for number in known) / len(known)) if known else 0.0
    # What never varies has no spread to be divided by.
    return {"offset": float(f"{mean:.4g}"), "scale": float(f"{spread_of:.4g}") or 1.0}


def _add_hidden(found: _Found) -> None:
    """Hide words of a text, or patches of another input, where there is nothing else to predict."""
    name = next((name for name, keys in found.data.items() if keys["modality"] == "text"), None)
    if name:
        found.data[name]["masking"] = {"probability": 0.15}
        found.outputs[name] = {"kind": "text"}
        return
    name = next((name for name, keys in found.data.items() if keys["modality"] in _MASKED), None)
    if name:
        # Three quarters, since neighbouring patches give a small gap away.
        found.outputs[name] = {"kind": "masked", "fraction": 0.75}


def _lines(folder: Path, run: str, shards: Manifest, num_read: int, found: _Found) -> Iterator[str]:
    train = shards.splits[TRAIN]
    # The order of EVALUATED is the one in which a run looks for a split.
    evaluated = next((name for wanted in EVALUATED for name in shards.splits if name.lower() == wanted), "")
    place = printable(str(folder))
    yield f"# For {place}, by {num_read} of {train.num_samples} training samples. Change what you like."
    yield "# `perceiver plan FILE` prints parameters, operations and memory; docs/your_data.md leads through a run."
    yield f"#   perceiver train FILE --run {run}"
    yield from (f"# {' '.join(remark.split())}" for remark in found.remarks)
    yield "seed: 0"
    yield "data:"
    yield f"  shards: {_yaml(str(folder))}"
    yield from _evaluation(evaluated, shards)
    yield "  inputs: # what is read of a sample, and the size that it is brought to"
    yield from (f"    {_yaml(name)}: {_yaml(keys)}" for name, keys in found.data.items())
    yield from (f"  {key}: {_yaml(value)}" for key, value in found.targets.items())
    yield from _batch_lines(train.num_samples, bool(evaluated), _network_lines(found, shards, train.num_samples))


def _evaluation(evaluated: str, shards: Manifest) -> Iterator[str]:
    if evaluated:
        yield f"  eval_split: {_yaml(evaluated)} # {counted(shards.splits[evaluated].num_samples, 'sample')}"
    else:
        yield f"  # No split to evaluate among {', '.join(map(shown, shards.splits))}; eval_split names another one."


def _network_lines(found: _Found, shards: Manifest, num_samples: int) -> Iterator[str]:
    yield "model:"
    if any(keys["kind"] == "masked" for keys in found.outputs.values()):
        yield "  mask_tokens: true"
    yield "  inputs: # how an input becomes tokens; sizes are those of the data"
    yield from (f"    {_yaml(name)}: {_yaml(keys)}" for name, keys in found.model.items())
    yield "  outputs: # what is predicted; docs/tasks.md has all kinds"
    for name, keys in found.outputs.items():
        target = keys.get("target", "")
        names = shards.named_labels.get(target, ()) if target else shards.label_names if name == "label" else ()
        # On one line, whatever a class is called: what follows would be read as a key.
        classes = f" # {' '.join(listed(names).split())}" if names else ""
        yield f"    {_yaml(name)}: {_yaml(keys)}{classes}"
    # A few samples are soon learned by heart; many deserve more weights.
    latents, width = (32, 64) if num_samples < 5_000 else (64, 128) if num_samples < 100_000 else (128, 256)
    yield f"  num_latents: {latents}"
    yield f"  latent_width: {width}"
    yield "  num_cross_attends: 2"
    yield "  num_blocks: 2"
    yield "  layers_per_block: 2"
    yield "  self_attend: {num_heads: 4}"


def _batch_lines(num_samples: int, is_evaluated: bool, network: Iterator[str]) -> Iterator[str]:
    """Yield the keys that follow from the number of samples, with the network's lines in their place."""
    # Of few samples an epoch must still have two batches.
    # A power of two, which the usual numbers of ranks divide, as the lanes do.
    batch = min(MAX_BATCH, 1 << max(0, (num_samples // 2).bit_length() - 1))
    lanes = min(MAX_LANES, max(1, batch // 4))
    steps = max(MIN_STEPS, min(MAX_STEPS, EPOCHS * num_samples // batch))
    yield f"  lanes: {lanes} # streams of shards; divides the global batch"
    yield from network
    yield "optimizer:"
    yield "  learning_rate: 1.0e-3"
    yield f"  warmup_steps: {min(1_000, steps // 10)}"
    yield "train:"
    yield f"  steps: {steps} # {counted(steps * batch / num_samples, 'epoch', form='.3g')}"
    yield f"  global_batch: {batch}"
    if is_evaluated:
        yield f"  evaluate_every_steps: {steps // 5}"
    yield "checkpoint:"
    yield f"  save_every_steps: {steps // 5}"


def _yaml(value: object) -> str:
    """Return a value on one line, quoted where YAML needs it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True)
    # PyYAML ends a document of one plain value with three full stops.
    return text.removesuffix("\n").removesuffix("\n...")
