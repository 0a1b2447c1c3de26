"""What a run asks of its data: the modalities with their fixed shapes, the sample order, and the loader's limits.

A modality is used when its section is set; every batch then has that array, zeros where a sample lacks it.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Optional

from data_shards.files.problems import MOST_BATCHES_AHEAD, Problem, at_least, at_most
from data_shards.files.quoting import shown
from data_shards.modalities.sections import (
    AudioConfig,
    FlowConfig,
    ImageConfig,
    PointsConfig,
    Section,
    TextConfig,
    VideoConfig,
)
from data_shards.modalities.transform_config import MixConfig
from data_shards.storage.config import DatasetConfig, RemoteConfig

__all__ = [
    "AudioConfig",
    "DataConfig",
    "FlowConfig",
    "ImageConfig",
    "PointsConfig",
    "Section",
    "TextConfig",
    "VideoConfig",
]


@dataclass(frozen=True)
class DataConfig:
    """The data of a run."""

    shards: str = ""
    """Folder that `perceiver data build` or `perceiver data index` wrote, with its splits."""
    eval_split: str = ""
    """Split that is evaluated; empty for test or, where there is none, val, validation, valid or dev."""
    image: Optional[ImageConfig] = None  # noqa: UP045 - OmegaConf reads Optional[X] best
    """Set to use images."""
    audio: Optional[AudioConfig] = None  # noqa: UP045
    """Set to use audio."""
    video: Optional[VideoConfig] = None  # noqa: UP045
    """Set to use video."""
    flow: Optional[FlowConfig] = None  # noqa: UP045
    """Set to use pairs of frames; the motion between them is a target."""
    points: Optional[PointsConfig] = None  # noqa: UP045
    """Set to use point clouds."""
    text: Optional[TextConfig] = None  # noqa: UP045
    """Set to use text."""
    modality_dropout: dict[str, float] = field(default_factory=dict)
    """Probability a modality that training hides it from a sample; at least one modality of a sample always stays."""
    require: tuple[str, ...] = ()
    """Modalities that a sample must have to be trained or evaluated on; the others are left out, and counted."""
    multi_label: bool = False
    """Samples have lists of labels, as AudioSet's: the target of each is a vector with a 1 for every one of them."""
    labels: tuple[str, ...] = ()
    """Names of further labels that are targets, such as those of a table's columns label.NAME."""
    mix: Optional[MixConfig] = None  # noqa: UP045
    """Set to train on pairs of images that are blended or pasted into each other; images must be the only modality."""
    datasets: dict[str, DatasetConfig] = field(default_factory=dict)
    """Several datasets, by name, that training mixes by weight; `shards` is then what is evaluated alone."""
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    """How shards behind a URL are fetched."""
    max_bad_rate: float = 0.001
    """Part of a modality's samples in a dataset that may be bad, and are replaced, before the run ends."""
    lanes: int = 8
    """Streams of shards that give equal parts of every global batch; must divide it. Part of the order."""
    window: int = 1024
    """Samples of a lane that are shuffled among each other: none moves further than half of it. Part of the order."""
    num_threads: int = 2
    """Threads that decode, each a whole batch."""
    num_processes: int = 0
    """Processes that decode in place of the threads; of use only where a transform holds the interpreter's lock."""
    prefetch_batches: int = 4
    """Batches made ahead of the one that is asked for, at most."""
    prefetch_mib: int = 1024
    """Memory that those batches may take together, at most."""

    def modalities(self) -> dict[str, "Section"]:
        """Return the sections that are set, by modality, in alphabetical order."""
        return self._modalities

    @cached_property
    def _modalities(self) -> dict[str, "Section"]:
        # Asked for several times a sample.
        sections = {
            "audio": self.audio,
            "flow": self.flow,
            "image": self.image,
            "points": self.points,
            "text": self.text,
            "video": self.video,
        }
        return {name: section for name, section in sections.items() if section is not None}

    def only(self, modalities: Container[str]) -> "DataConfig":
        """Return the configuration without the other modalities."""
        dropped = {name: None for name in self.modalities() if name not in modalities}
        return replace(self, **dropped)  # type: ignore[arg-type]  # all None

    @property
    def has_label_targets(self) -> bool:
        """Whether a label is a vector over the classes."""
        return self.multi_label or self.mix is not None

    def targets(self) -> dict[tuple[str, str], str]:
        """Return what a network can be asked of these data: (kind, of what), with the key that makes such targets.

        The key is empty for what is there in any case, and need not be asked.
        """
        found = {("labels" if self.multi_label else "label", ""): self._key_of_label_targets}
        found |= {("named label", name): "labels" for name in self.labels}
        for name, section in self.modalities().items():
            found["input", name] = ""
            if isinstance(section, TextConfig) and section.masking is not None:
                found["hidden words", name] = f"{name}.masking"
            if isinstance(section, FlowConfig):
                found["motion", name] = name
        return found

    @property
    def _key_of_label_targets(self) -> str:
        return "multi_label" if self.multi_label else "mix" if self.mix is not None else ""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the data's configuration."""
        if not self.modalities():
            yield "image", "no modality is set; set at least one of audio, flow, image, points, text, video"
        for name, section in self.modalities().items():
            yield from ((f"{name}.{key}", sentence) for key, sentence in section.problems())
        for name, probability in self.modality_dropout.items():
            if name not in self.modalities():
                yield (
                    f"modality_dropout.{name}",
                    f"{shown(name)} is not a modality of this run; set data.{name} or leave it out",
                )
            if not 0 <= probability <= 1:
                yield f"modality_dropout.{name}", f"must be a probability from 0 to 1, got {probability}"
        for name in self.require:
            if name not in self.modalities():
                yield "require", f"names {name!r}, which is not a modality of this run; set data.{name} or leave it out"
        yield from self._name_problems()
        yield from self._mix_problems()
        for name, part in self.datasets.items():
            yield from ((f"datasets.{name}.{key}", sentence) for key, sentence in part.problems())
        yield from ((f"remote.{key}", sentence) for key, sentence in self.remote.problems())
        if not 0 <= self.max_bad_rate <= 1:
            yield "max_bad_rate", f"must be from 0 to 1, got {self.max_bad_rate}"
        positive = ("lanes", "window", "num_threads", "prefetch_batches", "prefetch_mib")
        yield from at_least(1, {name: getattr(self, name) for name in positive})
        yield from at_least(0, {"num_processes": self.num_processes})
        yield from at_most(MOST_BATCHES_AHEAD, {"prefetch_batches": self.prefetch_batches})

    def _name_problems(self) -> Iterator[Problem]:
        """Targets come under the names of labels, and of the modalities that they are made of."""
        for name in sorted(set(self.labels)):
            if self.labels.count(name) > 1:
                yield "labels", f"names {name!r} twice; leave one out"
            if name == "label" or name in self.modalities():
                yield "labels", f"has the name {name!r}, which is taken; rename the label in the data"

    def _mix_problems(self) -> Iterator[Problem]:
        if self.mix is None:
            return
        yield from ((f"mix.{key}", sentence) for key, sentence in self.mix.problems())
        if self.image is None or len(self.modalities()) > 1:
            others = ", ".join(name for name in self.modalities() if name != "image") or "no image"
            yield "mix", f"mixes the labels by what it mixes of the images, and there is {others}; leave one out"
        if self.labels:
            yield (
                "labels",
                f"names {', '.join(self.labels)}, but data.mix mixes for the label alone; leave one out",
            )
