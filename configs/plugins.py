"""Plug-ins of a run: the files that its configuration names, and the classes in them.

    plugins: [my_eeg.py]

A file holds classes of the same kinds as ours; nothing has to be registered. A relative path is looked up beside the
configuration and then in the working directory. A run keeps a copy of each in its frozen code, and runs that alone.
"""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from data_shards.files import plugin_files
from data_shards.files.plugin_files import PluginError

FROZEN = "code/plugins"
"""Where a run keeps its plug-ins, relative to its configuration."""
T = TypeVar("T")
_modules: list[ModuleType] = []
"""Those of this process: what a configuration may say depends on them."""
_trusted: set[Path] = set()
"""Folders of runs whose plug-ins this process may run."""


def trust(run: Path) -> None:
    """Let this process run the plug-ins of the run in a folder: its user trains it, or has said --trust-code."""
    _trusted.add(run.resolve())


def check_trust(config: Path, paths: Sequence[Path]) -> None:
    """Raise ValueError where a configuration is that of a run, and nobody has said that its plug-ins may be run."""
    folder = config.resolve().parent
    if paths and config.name == "config.yaml" and (folder / "code").is_dir() and folder not in _trusted:
        raise ValueError(
            f"{config}: the run has plug-ins, whose code would be executed here: {', '.join(map(str, paths))}; read "
            "them, then say --trust-code (in Python trust_code=True)"
        )


def found(names: object, beside: Path) -> tuple[Path, ...]:
    """Return the files that a configuration in the folder `beside` names; PluginError where one is not there."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise PluginError(f"plugins: expected a list of Python files, such as [my_eeg.py], got {names!r}")
    paths = []
    for name in names:
        places = [(folder / name).resolve() for folder in (beside, Path())]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise PluginError(f"plugins: {name}: no such file, neither {places[0]} nor {places[1]}")
        paths.append(path)
    if twice := sorted({path.name for path in paths if [other.name for other in paths].count(path.name) > 1}):
        raise PluginError(f"plugins: two files are named {twice[0]}; a run keeps them by their names: rename one")
    return tuple(paths)


def use(paths: Sequence[Path]) -> None:
    """Make these, and no others, the plug-ins of this process; PluginError says what is wrong with one."""
    modules = [plugin_files.run(path) for path in paths]
    for module in modules:
        if not list(_classes(module)):
            known = ", ".join(sorted(base.__name__ for base in _bases()))
            raise PluginError(f"{module.__file__}: has no class that is one of {known}")
    _modules[:] = modules


def of_kind(base: type[T]) -> tuple[type[T], ...]:
    """Return the classes of the plug-ins that are of a kind."""
    return tuple(kind for module in _modules for kind in _classes(module) if issubclass(kind, base))


def _bases() -> tuple[type, ...]:
    """Return what a class of a plug-in can be; imported here, since most runs have none, and these need PyTorch."""
    from trainer.sinks.sink import RunSink

    return (RunSink,)


def _classes(module: ModuleType) -> Iterator[type[Any]]:
    """Yield the classes of a plug-in that are of ours; a name that begins with _ is its own business."""
    for name, kind in vars(module).items():
        if not isinstance(kind, type) or kind.__module__ != module.__name__ or name.startswith("_"):
            continue
        if issubclass(kind, _bases()):
            if inspect.isabstract(kind):
                missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
                raise PluginError(f"{plugin_files.place_of(kind)}: {name} lacks {missing}")
            yield kind
