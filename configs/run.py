"""What a run is: one frozen dataclass, loaded strictly from defaults < YAML file < key=value."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from data_shards.config import DataConfig
from model.config import PerceiverConfig
from trainer.config import CheckpointConfig, OptimizerConfig, ProfileConfig, TrainConfig, WatchConfig

VERSION = 1
SAME = {"num_bytes": "max_tokens"}
"""Fields of the data whose name in the network's inputs is another."""


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
    watch: WatchConfig = field(default_factory=WatchConfig)
    """What is done about steps that go wrong and processes that do not answer."""
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """A window of steps to be traced."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem that a part sees in itself and of those that only the whole sees."""
        if self.version != VERSION:
            remedy = f"set version={VERSION} after comparing the keys, or use the release that wrote the file"
            yield "version", f"this release reads version {VERSION}; {remedy}"
        for part in ("data", "model", "optimizer", "train", "checkpoint", "watch", "profile"):
            for key, sentence in getattr(self, part).problems():
                yield f"{part}.{key}", sentence
        yield from self._batch_problems()
        yield from self._shape_problems()

    def _batch_problems(self) -> Iterator[tuple[str, str]]:
        lanes = self.data.lanes
        if lanes > 0 and self.train.global_batch % lanes:
            yield "train.global_batch", f"must be a multiple of data.lanes, which is {lanes}; change one of the two"

    def _shape_problems(self) -> Iterator[tuple[str, str]]:
        """The network's inputs must be those that the data delivers, with the same shapes."""
        read, delivered = self.model.inputs.chosen(), self.data.modalities()
        for modality in sorted(read.keys() ^ delivered.keys()):
            here, there = ("model.inputs", "data") if modality in read else ("data", "model.inputs")
            yield f"{here}.{modality}", f"is set but {there}.{modality} is not; set both or neither"
        for modality in sorted(read.keys() & delivered.keys()):
            for name, expected in vars(delivered[modality]).items():
                name_there = SAME.get(name, name)
                if getattr(read[modality], name_there, expected) != expected:
                    key = f"data.{modality}.{name}"
                    yield f"model.inputs.{modality}.{name_there}", f"must equal {key} = {expected}; write '${{{key}}}'"


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run's configuration: defaults, overwritten by the YAML file, overwritten by key=value.

    Raises ConfigError with every problem at once: unknown keys, wrong types, missing or contradictory values.
    """
    problems: list[str] = []
    leaves = [*_leaves(_read_yaml(path)), *_parse(overrides, problems)]
    config = OmegaConf.structured(RunConfig)
    for key, value in leaves:
        try:
            config = OmegaConf.merge(config, _nested(key, value))
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            problems.append(f"{key} = {value!r}: {_explain(key, error)}")
    if problems:
        raise ConfigError(str(path), problems)
    assert isinstance(config, DictConfig)
    return _checked(config, str(path))


def dump(config: RunConfig) -> str:
    """Return the resolved configuration as YAML; `load` of it gives an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Return a line "key: old -> new" for every value in which two configurations differ."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys if before.get(key) != after.get(key)]


def _checked(config: DictConfig, source: str) -> RunConfig:
    try:
        run = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(source, [f"{f'{key}: ' if key else ''}{str(error).splitlines()[0]}"]) from error
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


def _nested(key: str, value: object) -> dict[str, object]:
    name, _, rest = key.partition(".")
    return {name: _nested(rest, value) if rest else value}


def _explain(key: str, error: Exception) -> str:
    parent, _, name = key.rpartition(".")
    owner = getattr(error, "object_type", None)
    if isinstance(error, ConfigKeyError) and isinstance(owner, type) and is_dataclass(owner):
        known = [field.name for field in fields(owner)]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {parent}.{close[0]}?" if close and parent else f"known are {', '.join(close or known)}"
        return f"unknown key; {hint}"
    default = OmegaConf.select(OmegaConf.structured(RunConfig), key, throw_on_missing=False)
    remedy = "" if OmegaConf.is_config(default) else f"; the default is {default!r}"
    return str(error).splitlines()[0] + remedy


def _flat(config: RunConfig) -> Iterator[tuple[str, Any]]:
    content = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(content, dict)
    yield from _leaves({str(key): value for key, value in content.items()})
