"""Plug-ins of a run: the files that its configuration names, and the classes in them.

    plugins: [my_eeg.py]

A file holds classes of the same kinds as ours; nothing has to be registered. A relative path is looked up beside the
configuration and then in the working directory. A run keeps a copy of each in its frozen code, and runs that alone.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from configs import plugin_contract
from data_shards.files import plugin_files
from data_shards.files.plugin_files import PluginError, place_of

FROZEN = "code/plugins"
"""Where a run keeps its plug-ins, relative to its configuration."""
T = TypeVar("T")
_modules: list[ModuleType] = []
"""The plug-ins loaded in this process. They decide which values a configuration accepts."""
_added: list[tuple[dict[str, Any], str]] = []
"""The entries that plug-ins added to our tables."""
_trusted: set[Path] = set()
"""Folders of runs whose plug-ins this process may run."""


@dataclass(frozen=True)
class Kind:
    """The kind of class that a plug-in can define."""

    base: type
    """The class that it is a subclass of."""
    table: dict[str, Any] | None = None
    """The table in which a configuration finds classes of this kind by name."""
    key: str = ""
    """The field or attribute that holds the name."""


def trust(run: Path) -> None:
    """Let this process run the plug-ins of the run in a folder: its user trains it, or has said --trust-code."""
    _trusted.add(run.resolve())


def check_trust(config: Path, paths: Sequence[Path]) -> None:
    """Raise ValueError for the configuration of a run whose plug-ins were not trusted."""
    folder = config.resolve().parent
    # A configuration of this name with code beside it is that of a run, perhaps of somebody else's. Any other file is
    # the user's own.
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
        # Beside the configuration first, so that it means the same from every working directory.
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
    # A process may read several runs, each with plug-ins of its own under the same names.
    while _added:
        table, name = _added.pop()
        del table[name]
    # Before the files are run: one that fails leaves no plug-in in use.
    _modules.clear()
    modules = [plugin_files.run(path) for path in paths]
    for module in modules:
        classes = list(_classes(module))
        if not classes:
            known = ", ".join(sorted(kind.base.__name__ for kind in _kinds()))
            raise PluginError(f"{module.__file__}: has no class that is one of {known}")
        for kind, own in classes:
            plugin_contract.hold(own, kind.base)
            _add(kind, own)
    _modules[:] = modules
    # After all files: a modality may be in one and its tokens in another.
    _check_pairs()


@contextmanager
def kept() -> Iterator[None]:
    """Keep the plug-ins in use what they are, whichever others a configuration that is read meanwhile has."""
    modules, added = list(_modules), [(table, name, table[name]) for table, name in _added]
    by_name = plugin_files.modules()
    try:
        yield
    finally:
        use(())
        # The very classes: those of a second execution would be others.
        plugin_files.restore(by_name)
        for table, name, own in added:
            table[name] = own
        _added[:] = [(table, name) for table, name, _ in added]
        _modules[:] = modules


def of_kind(base: type[T]) -> tuple[type[T], ...]:
    """Return the classes of the plug-ins that are of a kind."""
    return tuple(own for module in _modules for kind, own in _classes(module) if kind.base is base)


def _kinds() -> tuple[Kind, ...]:
    """Return what a class of a plug-in can be; imported here, since most runs have none, and some need PyTorch."""
    from data_shards.modalities.kinds.catalogue import BY_NAME
    from data_shards.modalities.modality import Modality
    from model.config.custom_network import NETWORKS, CustomNetwork
    from model.modalities import catalogue
    from model.modalities.input import Input
    from model.outputs.kinds import KINDS
    from model.outputs.output import Output
    from trainer.optimizer_choice import OPTIMIZERS, RunOptimizer
    from trainer.sinks.sink import RunSink
    from trainer.tasks.kinds.catalogue import BY_KIND
    from trainer.tasks.task import Task

    return (
        Kind(Modality, BY_NAME, "modality"),
        Kind(Input, catalogue.BY_NAME, "modality"),
        Kind(Output, KINDS, "kind"),
        Kind(CustomNetwork, NETWORKS, "kind"),
        Kind(Task, BY_KIND, "kind"),
        Kind(RunOptimizer, OPTIMIZERS, "name"),
        Kind(RunSink),
    )


def _classes(module: ModuleType) -> Iterator[tuple[Kind, type[Any]]]:
    """Yield the classes of a plug-in that are of ours; a name that begins with _ is its own business."""
    for name, own in vars(module).items():
        # What a file imports, such as our base classes, is not its own.
        if not isinstance(own, type) or own.__module__ != module.__name__ or name.startswith("_"):
            continue
        for kind in (kind for kind in _kinds() if issubclass(own, kind.base)):
            if inspect.isabstract(own):
                missing = ", ".join(sorted(getattr(own, "__abstractmethods__", ())))
                raise PluginError(f"{place_of(own)}: {name} lacks {missing}")
            yield kind, own


def _add(kind: Kind, own: type[Any]) -> None:
    """Add a class to the table of its kind, where a configuration finds it."""
    if kind.table is None:
        return
    # is_dataclass() also holds for a class that only inherits from a dataclass, whose own fields would be ignored.
    if not is_dataclass(own) or "__dataclass_fields__" not in vars(own):
        raise PluginError(f"{place_of(own)}: {own.__name__} is no dataclass; write @dataclass(frozen=True) above it")
    name = getattr(own, kind.key, None)
    if not isinstance(name, str) or not name.isidentifier():
        raise PluginError(
            f'{place_of(own)}: {own.__name__} needs a name of its own, such as {kind.key}: {_named_as(kind)} = "mine"'
        )
    if name in kind.table:
        raise PluginError(f"{place_of(own)}: {kind.key} {name!r} is there already; give {own.__name__} another name")
    kind.table[name] = own
    _added.append((kind.table, name))


def _named_as(kind: Kind) -> str:
    return "ClassVar[str]" if kind.base.__name__ in ("Task", "RunOptimizer") else 'Literal["mine"]'


def _check_pairs() -> None:
    """Raise PluginError for a modality without its tokens, an answer without its task, or a task without its answer."""
    by_base = {kind.base.__name__: kind for kind in _kinds()}
    pairs: tuple[tuple[str, str, Callable[[str], str]], ...] = (
        ("Output", "Task", lambda name: f"an answer of kind {name!r} needs a Task with kind = {name!r}, its loss"),
        ("Modality", "Input", lambda name: f"a modality {name!r} needs an Input with modality = {name!r}, its tokens"),
        ("Task", "Output", lambda name: f"a task of kind {name!r} needs an Output with kind = {name!r}, its answer"),
    )
    for one, other, words in pairs:
        there, needed = by_base[one].table or {}, by_base[other].table or {}
        for table, name in _added:
            if table is there and name not in needed:
                raise PluginError(f"{place_of(there[name])}: {words(name)}")
