"""The data section of a run: the inputs with their fixed shapes, the sample order, and the loader's limits.

Every batch has an array for each input, zeros where a sample lacks it.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Optional

from data_shards.files.problems import MOST_BATCHES_AHEAD, Problem, at_least, at_most
from data_shards.files.quoting import shown
from data_shards.modalities.kinds.catalogue import BY_NAME
from data_shards.modalities.modality import COORDINATES, Modality
from data_shards.modalities.transform_config import ClipsConfig, MixupConfig
from data_shards.storage.config import DatasetConfig, RemoteConfig

ALL = "all"
"""The name of a metric with all inputs; no input may have this name."""


@dataclass(frozen=True)
class DataConfig:
    """The data of a run."""

    shards: str = ""
    """Folder that `perceiver data build` or `perceiver data index` wrote, with its splits."""
    eval_split: str = ""
    """Split that is evaluated; empty for test or, where there is none, val, validation, valid or dev."""
    inputs: dict[str, Any] = field(default_factory=dict, metadata={"chosen_by": "modality", "among": BY_NAME})
    """The inputs, under names of your choice: NAME: {modality: image, height: 32, width: 32}."""
    modality_dropout: dict[str, float] = field(default_factory=dict)
    """Probability an input that training hides it from a sample; at least one input of a sample always stays."""
    require: tuple[str, ...] = ()
    """Inputs that a sample must have to be trained or evaluated on; the others are left out, and counted."""
    multi_label: bool = False
    """Samples have lists of labels, as AudioSet's: the target of each is a vector with a 1 for every one of them."""
    labels: tuple[str, ...] = ()
    """Names of further labels that are targets, such as those of a table's columns label.NAME."""
    values: tuple[str, ...] = ()
    """Names of numbers that are targets, such as those of a table's columns value.NAME; several may be one value."""
    mixup: Optional[MixupConfig] = None  # noqa: UP045
    """Set to train on pairs of images that are blended or pasted into each other; an image must be the only input."""
    clips: Optional[ClipsConfig] = None  # noqa: UP045
    """Set to cut sound and video at the same time, and to evaluate several clips of a sample."""
    datasets: dict[str, DatasetConfig] = field(default_factory=dict)
    """Several datasets, by name, that training mixes by weight; `shards` is then what is evaluated alone."""
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    """How shards behind a URL are fetched."""
    max_bad_rate: float = 0.001
    """Part of an input's samples in a dataset that may be bad, and are replaced, before the run ends."""
    # To mix more, raise this before the window: each lane adds a shard to every batch.
    lanes: int = 8
    """Streams of shards that give equal parts of every global batch; must divide it. Part of the order."""
    window: int = 1024
    """Samples of a lane that are shuffled among each other: none moves further than half of it. Part of the order."""
    num_threads: int = 2
    """Threads that decode, each a whole batch."""
    # With JPEG and FLAC processes took 1.7 times the processor time of threads: those decoders release the lock, and
    # what a process made must be sent.
    num_processes: int = 0
    """Processes that decode in place of the threads; of use only where a transform holds the interpreter's lock."""
    prefetch_batches: int = 4
    """Batches made ahead of the one that is asked for, at most."""
    prefetch_mib: int = 1024
    """Memory that those batches may take together, at most."""

    @cached_property
    def ordered_inputs(self) -> dict[str, Modality]:
        """The inputs in the order of their names, in which they are decoded and draw their random numbers."""
        # Sorted: the order of keys in a YAML file must not change what is drawn.
        return dict(sorted(self.inputs.items()))

    def only(self, names: Container[str]) -> "DataConfig":
        """Return the configuration without the other inputs."""
        return replace(self, inputs={name: section for name, section in self.inputs.items() if name in names})

    def of_evaluation(self) -> "DataConfig":
        """Return the configuration with which every split but that of training is read."""
        return replace(self, inputs={name: section.of_evaluation() for name, section in self.inputs.items()})

    def target_arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of what the network is to say of inputs, by their names."""
        found = {name: section.target for name, section in self.ordered_inputs.items()}
        return {name: target for name, target in found.items() if target is not None}

    @property
    def required_members(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The inputs that a sample must have, each with the patterns of its member."""
        return tuple((name, self.ordered_inputs[name].patterns) for name in sorted(self.require))

    @property
    def num_clips(self) -> int:
        """The clips that evaluation reads of a sample."""
        return self.clips.num_test if self.clips is not None else 1

    @property
    def has_label_targets(self) -> bool:
        """Whether a label is a vector over the classes."""
        return self.multi_label or self.mixup is not None

    def targets(self) -> dict[tuple[str, str], str]:
        """Return what a network can be asked of these data: (kind, of what), with the key that makes such targets.

        The key is empty for what is there in any case, and need not be asked.
        """
        # The kinds that a task asks for, see trainer/tasks.
        found = {("labels" if self.multi_label else "label", ""): self._key_of_label_targets}
        found |= {("named label", name): "labels" for name in self.labels}
        found |= {("value", name): "values" for name in self.values}
        for name, section in self.ordered_inputs.items():
            found["input", name] = ""
            if section.places is not None:
                found["input", f"{name}.{COORDINATES}"] = ""
            if section.asks:
                found[section.asks[0], name] = f"inputs.{name}.{section.asks[1]}".rstrip(".")
        return found

    @property
    def _key_of_label_targets(self) -> str:
        return "multi_label" if self.multi_label else "mixup" if self.mixup is not None else ""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the data's configuration."""
        if not self.inputs:
            yield "inputs", f"no input is set; set at least one of {', '.join(BY_NAME)}, as NAME.modality=image"
        for name, section in self.ordered_inputs.items():
            yield from ((f"inputs.{name}.{key}", sentence) for key, sentence in section.problems())
        yield from self._name_problems()
        yield from self._mix_problems()
        if self.clips is not None:
            yield from ((f"clips.{key}", sentence) for key, sentence in self.clips.problems())
            # Of an image there is nothing to cut, and a key without effect would be taken for one with.
            if not any(section.has_time for section in self.inputs.values()):
                yield "clips", f"cuts sound and video, and there is {', '.join(self.inputs) or 'none'}; leave it out"
        for name, part in self.datasets.items():
            yield from ((f"datasets.{name}.{key}", sentence) for key, sentence in part.problems())
        yield from ((f"remote.{key}", sentence) for key, sentence in self.remote.problems())
        if not 0 <= self.max_bad_rate <= 1:
            yield "max_bad_rate", f"must be from 0 to 1, got {self.max_bad_rate}"
        positive = ("lanes", "window", "num_threads", "prefetch_batches", "prefetch_mib")
        yield from at_least(1, {name: getattr(self, name) for name in positive})
        yield from at_least(0, {"num_processes": self.num_processes})
        # A limit far above any use: a slip such as 1e9 would compute orders for hours before the first step.
        yield from at_most(MOST_BATCHES_AHEAD, {"prefetch_batches": self.prefetch_batches})

    def _name_problems(self) -> Iterator[Problem]:
        """Names must be those of inputs, and nothing may have the name of something else."""
        if ALL in self.inputs:
            yield f"inputs.{ALL}", f"{ALL} is what a score with all inputs is called; choose another name"
        for name, probability in self.modality_dropout.items():
            if name not in self.inputs:
                yield f"modality_dropout.{name}", _no_input(name)
            if not 0 <= probability <= 1:
                yield f"modality_dropout.{name}", f"must be a probability from 0 to 1, got {probability}"
        for name in self.require:
            if name not in self.inputs:
                yield "require", f"names {_no_input(name)}"
        yield from self._label_name_problems()

    def _label_name_problems(self) -> Iterator[Problem]:
        """Targets come under the names of labels and values, and of the inputs that they are made of."""
        for key, names in (("labels", self.labels), ("values", self.values)):
            others = {"label", *self.inputs, *(self.labels if key == "values" else ())}
            for name in sorted(set(names)):
                if names.count(name) > 1:
                    yield key, f"names {name!r} twice; leave one out"
                if name in others:
                    yield key, f"has the name {name!r}, which is taken; rename it in the data"
        if "label" in self.target_arrays():
            yield "inputs.label", "has a target of its own, and the label of a sample has this name; choose another"

    def _mix_problems(self) -> Iterator[Problem]:
        if self.mixup is None:
            return
        yield from ((f"mixup.{key}", sentence) for key, sentence in self.mixup.problems())
        others = [name for name, section in self.ordered_inputs.items() if section.modality != "image"]
        if others or len(self.inputs) != 1:
            found = ", ".join(others or self.ordered_inputs) or "no image"
            yield "mixup", f"mixes the labels by what it mixes of one image, and there is {found}; leave one out"
        # Each label would need its own mixed target, which only the sample's own label has.
        if self.labels:
            yield (
                "labels",
                f"names {', '.join(self.labels)}, but data.mixup mixes for the label alone; leave one out",
            )


def _no_input(name: str) -> str:
    return f"{shown(name)}, which is not an input of this run; set data.inputs.{name} or leave it out"
