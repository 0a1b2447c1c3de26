"""Files that a configuration names beside the shards, such as a tokenizer: found by their paths, kept by a run.

A field of a dataclass says that it is one: `tokenizer: str = field(default="", metadata={"is_file": True})`. A relative
path is looked up beside the configuration and then in the working directory. A run keeps a copy under the hash of its
bytes, RUN/files/HASH.json, and reads that alone: another content is another name, and with it another configuration.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from data_shards.files import atomic

FOLDER = "files"
"""The folder of a run's copies, relative to its configuration."""


def make_absolute(config: DictConfig, beside: Path) -> None:
    """Replace each path of a file that is there by its whole path; one that is nowhere stays as it is."""
    for section, key in _places(config):
        # Beside the configuration first, so that it means the same from every working directory.
        found = [path for folder in (beside, Path()) if (path := (folder / section[key]).absolute()).exists()]
        if found:
            with read_write(section):
                section[key] = str(found[0])


def container(value: Any, name: Callable[[str], str] = str) -> Any:  # noqa: ANN401  # whatever it is made of
    """Return a configuration as mappings, sequences and plain values, where the path of a file is what `name` returns.

    OmegaConf.to_container(OmegaConf.structured(config)) is the same, and takes thirty times as long.
    """
    if is_dataclass(value):
        parts = [(field, getattr(value, field.name)) for field in fields(value)]
        return {field.name: name(part) if _is_path(field, part) else container(part, name) for field, part in parts}
    if isinstance(value, dict):
        return {key: container(part, name) for key, part in value.items()}
    return type(value)(container(part, name) for part in value) if isinstance(value, list | tuple) else value


def name_as_kept(path: str) -> str:
    """Return the path of the copy in a run's folder; that of a file that cannot be read as it is."""
    try:
        return _kept_name(Path(path))
    except OSError:
        return path


def keep(config: object, run: Path) -> None:
    """Copy the files of a configuration into the folder of a run, and remove copies that it does not name."""
    folder = run / FOLDER
    sources = {path: _kept_name(path) for path in map(Path, _paths(config))}
    for path, name in sources.items():
        if not (run / name).is_file():
            folder.mkdir(exist_ok=True)
            atomic.write(run / name, path.read_bytes())
    # A run that has not begun may be given another configuration; what only the one before it named is of no use.
    for other in folder.glob("*"):
        if f"{FOLDER}/{other.name}" not in sources.values():
            other.unlink()


def _paths(value: Any) -> Iterator[str]:  # noqa: ANN401  # whatever a configuration is made of
    """Yield the path of each file that is named."""
    if is_dataclass(value):
        for field in fields(value):
            part = getattr(value, field.name)
            yield from [part] if _is_path(field, part) else _paths(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _paths(part)


def _is_path(field: Field[Any], value: object) -> bool:
    return bool(field.metadata.get("is_file") and value)


def _kept_name(path: Path) -> str:
    # By its content: an edited file is another value of the key, which a resume refuses.
    return f"{FOLDER}/{hashlib.sha256(path.read_bytes()).hexdigest()}{path.suffix}"


def _places(config: DictConfig) -> Iterator[tuple[DictConfig, str]]:
    """Yield each section, and the key in it, whose value is the path of a file."""
    kind: Any = OmegaConf.get_type(config)
    names = {field.name for field in fields(kind) if field.metadata.get("is_file")} if _is_section(kind) else set()
    for name in config:
        # A reference becomes what the key that it names has become, and what is left open is refused elsewhere.
        if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, str(name)):
            continue
        value = config[name]
        if isinstance(value, DictConfig):
            yield from _places(value)
        elif name in names and value:
            yield config, str(name)


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
