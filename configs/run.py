"""What a run is: one frozen dataclass, loaded strictly from defaults < YAML file < key=value."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_shards.config import DataConfig
from model.config import PerceiverConfig
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig

VERSION = 1


class ConfigError(ValueError):
    """Every problem of a configuration at once, each with its key, value and remedy."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__("\n  ".join([f"{count} in {source}:", *problems]))
        self.problems = tuple(problems)


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

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem that a part sees in itself and of those that only the whole sees."""
        if self.version != VERSION:
            remedy = f"set version={VERSION} after comparing the keys, or use the release that wrote the file"
            yield "version", f"this release reads version {VERSION}; {remedy}"
        for part in ("data", "model", "optimizer", "train", "checkpoint"):
            for key, sentence in getattr(self, part).problems():
                yield f"{part}.{key}", sentence
        yield from self._batch_problems()
        yield from self._shape_problems()

    def _batch_problems(self) -> Iterator[tuple[str, str]]:
        if self.train.global_batch > 0 and self.data.lanes > 0 and self.train.global_batch % self.data.lanes:
            yield (
                "train.global_batch",
                f"must be a multiple of data.lanes ({self.data.lanes}), since every lane gives the same number of samples "
                "to a batch; change one of the two",
            )

    def _shape_problems(self) -> Iterator[tuple[str, str]]:
        """The network's inputs must be those that the data delivers, with the same shapes."""
        for modality in (spec.name for spec in fields(self.model.inputs)):
            network, delivered = getattr(self.model.inputs, modality), getattr(self.data, modality, None)
            if (network is None) != (delivered is None):
                here, there = ("model.inputs", "data") if delivered is None else ("data", "model.inputs")
                yield f"{here}.{modality}", f"is set but {there}.{modality} is not; set both or neither"
                continue
            if network is None:
                continue
            shared = {spec.name for spec in fields(network)} & {spec.name for spec in fields(delivered)}
            for name in sorted(shared):
                if getattr(network, name) != getattr(delivered, name):
                    yield (
                        f"model.inputs.{modality}.{name}",
                        f"data.{modality}.{name} is {getattr(delivered, name)}; "
                        f"the two must be equal (write ${{data.{modality}.{name}}} in the file)",
                    )


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run's configuration: defaults, overwritten by the YAML file, overwritten by key=value.

    Raises ConfigError with every problem at once: unknown keys, wrong types, missing or contradictory values.
    """
    config = OmegaConf.structured(RunConfig)
    problems: list[str] = []
    for key, value in [*_leaves(_read_yaml(path)), *_parse(overrides, problems)]:
        try:
            OmegaConf.update(config, key, value, merge=True)
        except (OmegaConfBaseException, AssertionError, TypeError, ValueError) as error:
            problems.append(f"{key} = {value!r}: {_explain(config, key, error)}")
    if problems:
        raise ConfigError(str(path), problems)
    return _checked(config, str(path))


def dump(config: RunConfig) -> str:
    """Return the resolved configuration as YAML; `load` of it gives an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Return a line "key: old -> new" for every value in which two configurations differ."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)
    ]


def _checked(config: DictConfig, source: str) -> RunConfig:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(source, [f"{key}: has no default; give it in the file or as {key}=VALUE" for key in missing])
    try:
        run = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(source, [str(error).splitlines()[0]]) from error
    assert isinstance(run, RunConfig)
    problems = [f"{key} = {OmegaConf.select(config, key)!r}: {sentence}" for key, sentence in run.problems()]
    if problems:
        raise ConfigError(source, problems)
    return run


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        named = sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))
        raise ConfigError(str(path), [f"no such file; the named runs are {', '.join(named)} (configs/NAME.yaml)"])
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"not YAML: {' '.join(str(error).split())}"]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), [f"expected keys and values, got {type(content).__name__}"])
    return content


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _parse(overrides: Sequence[str], problems: list[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"{override}: expected key=value, such as train.steps=1000")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        yield from _leaves({key: value})


def _explain(config: DictConfig, key: str, error: Exception) -> str:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if isinstance(node, DictConfig) and name not in node:
        known = [str(key) for key in node]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {f'{parent}.' if parent else ''}{close[0]}?" if close else f"known: {', '.join(known)}"
        return f"unknown key; {hint}"
    if node is None:
        return f"unknown key; {parent} is not set"
    return str(error).splitlines()[0]


def _flat(config: RunConfig) -> Iterator[tuple[str, Any]]:
    content = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(content, dict)
    yield from _leaves({str(key): value for key, value in content.items()})
