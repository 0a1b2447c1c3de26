"""What a run is: one frozen dataclass, loaded strictly from defaults < YAML file < key=value."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from configs.reader import leaves, read
from data_shards.config import DataConfig, Section
from data_shards.files.display import printable
from model.config.outputs import GridOutput
from model.config.perceiver import PerceiverConfig
from trainer.config import (
    CheckpointConfig,
    HealthConfig,
    OptimizerConfig,
    ProfileConfig,
    TrainConfig,
    joint_problems,
)

VERSION = 1
MOST_SEED = 2**63 - 1
"""The generators of torch take no larger one."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes; how many processes compute it is not part of it."""

    version: int = VERSION
    """Version of this layout; a file of another version is refused."""
    seed: int = 0
    """Seed of the weights, of the order of the samples and of every random transform."""
    data: DataConfig = field(default_factory=DataConfig)
    """The shards and what is read from them."""
    model: PerceiverConfig = field(default_factory=PerceiverConfig)
    """The network."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer and its schedule."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, batch, precision and partitioning of the training."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written and which are kept."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """What is done about steps that go wrong and processes that do not answer."""
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """A window of steps to be traced."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem that a part sees in itself and of those that only the whole sees."""
        if self.version != VERSION:
            remedy = f"set version={VERSION} after comparing the keys, or use the release that wrote the file"
            yield "version", f"this release reads version {VERSION}; {remedy}"
        if not 0 <= self.seed <= MOST_SEED:
            yield "seed", f"must be from 0 to {MOST_SEED}, got {self.seed}"
        for part in ("data", "model", "optimizer", "train", "checkpoint", "health", "profile"):
            for key, sentence in getattr(self, part).problems():
                yield f"{part}.{key}", sentence
        yield from joint_problems(self.optimizer, self.train)
        if self.train.activation_memory_gib and self.model.activation_checkpointing != "none":
            chosen = f"model.activation_checkpointing, which is {self.model.activation_checkpointing}"
            yield "train.activation_memory_gib", f"chooses {chosen}; set one of the two"
        yield from self._batch_problems()
        yield from self._shape_problems()
        yield from self._target_problems()

    def _batch_problems(self) -> Iterator[tuple[str, str]]:
        lanes = self.data.lanes
        if lanes > 0 and self.train.global_batch % lanes:
            yield "train.global_batch", f"must be a multiple of data.lanes, which is {lanes}; change one of the two"

    def _shape_problems(self) -> Iterator[tuple[str, str]]:
        """The network's inputs must be those that the data delivers, with the same shapes."""
        wanted, delivered = self.model.inputs.chosen(), self.data.modalities()
        for modality in sorted(wanted.keys() - delivered.keys()):
            yield (
                f"model.inputs.{modality}",
                _UNDELIVERED.get(modality, f"is set but data.{modality} is not; set both or neither"),
            )
        for modality in sorted(delivered.keys() - wanted.keys()):
            yield f"data.{modality}", f"is set but model.inputs.{modality} is not; set both or neither"
        for modality in sorted(wanted.keys() & delivered.keys()):
            if wanted[modality].shape != delivered[modality].shape:
                yield (
                    f"model.inputs.{modality}",
                    f"reads arrays of shape {wanted[modality].shape}, but data.{modality} delivers "
                    f"{delivered[modality].shape}; make the two agree",
                )

    def _target_problems(self) -> Iterator[tuple[str, str]]:
        """The data must have the targets of the network's answers."""
        outputs, data = self.model.outputs, self.data
        is_masked = data.text is not None and data.text.masking is not None
        if is_masked != (outputs.text is not None):
            yield "data.text.masking", "hides words that model.outputs.text learns to fill in; set both or neither"
        if outputs.label is not None and outputs.label.multi_label != data.multi_label:
            expected = f"must equal model.outputs.label.multi_label, which is {outputs.label.multi_label}"
            yield "data.multi_label", f"{expected}; change one of the two"
        if data.has_label_targets and outputs.label is None:
            yield "model.outputs.label", "is not set, but data.multi_label or data.mix makes targets of it; set it"
        yield from self._named_label_problems()
        if (data.flow is None) != (outputs.flow is None):
            yield "data.flow", "reads pairs whose motion model.outputs.flow tells; set both or neither"
        for name, grid in outputs.grids().items():
            yield from _grid_problems(name, grid, data.modalities().get(name))

    def _named_label_problems(self) -> Iterator[tuple[str, str]]:
        answered, delivered = self.model.outputs.labels, self.data.labels
        for name in sorted(answered.keys() - set(delivered)):
            yield f"model.outputs.labels.{name}", "is set but data.labels does not name it; do both or neither"
        for name in sorted(set(delivered) - answered.keys()):
            yield "data.labels", f"names {name!r}, but model.outputs.labels.{name} is not set; do both or neither"
        for name, output in answered.items():
            if output.multi_label:
                yield (
                    f"model.outputs.labels.{name}.multi_label",
                    "is for model.outputs.label only: a label by name is one class a sample",
                )


_UNDELIVERED = {
    "label": "no data has it: a class is an input only of networks that programs call; leave it out",
    "spectrogram": "no data has it: data.audio.log_mel delivers frames of bins; set that, and model.inputs.audio with "
    "num_samples as its frames and num_channels as its bins in this one's place",
}


def _grid_problems(name: str, grid: GridOutput, section: Section | None) -> Iterator[tuple[str, str]]:
    """What is drawn again must be read, cell by cell."""
    answered = (*grid.shape, grid.num_channels)
    if section is None:
        yield f"model.outputs.{name}", f"draws again what data.{name} reads; set it, or leave this out"
    # Sound is cut into patches: a query answers several samples.
    elif answered != section.shape and (len(section.shape) > 1 or prod(answered) != prod(section.shape)):
        yield (
            f"model.outputs.{name}.shape",
            f"answers {answered}, data.{name} delivers {section.shape}; make them agree",
        )


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a run: defaults < YAML file < key=value; ConfigError has every problem at once.

    Raises ValueError for the file of an imported network, beside whose weights a run would start from new ones.
    """
    weights = path.with_name("model.safetensors")
    if weights.is_file():
        raise ValueError(
            f"{path}: describes the network whose weights are in {weights}, and a run would start from new weights; "
            "`perceiver plan` and `perceiver export` take this network; to train a new one of its shape, copy "
            f"{path.name} into another folder"
        )
    return read(RunConfig, path, overrides)


def dump(config: RunConfig) -> str:
    """Return the resolved configuration as YAML; `load` of it gives an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Return a line "key: old -> new" for every value in which two configurations differ."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return [printable(f"{key}: {before.get(key)!r} -> {after.get(key)!r}") for key in changed]


def _flat(config: RunConfig) -> Iterator[tuple[str, Any]]:
    content = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(content, dict)
    yield from leaves({str(key): value for key, value in content.items()})
