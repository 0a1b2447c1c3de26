"""Plug-ins: Python files of a user's own, run as modules of their own, and what is said of their faults.

A file is one module, `perceiver_plugins.STEM`, whatever folder it lies in; it may import what is installed, and no file
beside it. A fault in it is one sentence with file and line, wherever it shows itself: `fault_in` finds it in an error.
"""

import inspect
import sys
import traceback
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from data_shards.files.quoting import cut

_PREFIX = "perceiver_plugins."
_OURS = ("configs", "data_shards", "launch", "model", "perceiver_trainer", "trainer")
"""Our packages, beside which a plug-in may lie."""
_ONE_FILE = "a plug-in is one file, so write in it what it needs, or install that as a package"


class PluginError(ValueError):
    """A fault of a plug-in: no sample, file or disk is to blame, and another try ends in the same way."""

    def of_sample(self, key: str, shard: str) -> "PluginError":
        """Return this fault with the sample in which it showed itself; what is in no shard has none to be named."""
        return PluginError(f"{self}; in sample {cut(key)}{f' of {shard}' if shard else ''}")


def run(path: Path) -> ModuleType:
    """Run a plug-in and return its module; that of before where the same content has been run under its name.

    PluginError says in which line it fails.
    """
    name = f"{_PREFIX}{path.stem}"
    if not path.stem.isidentifier() or path.suffix != ".py":
        raise PluginError(f"{path}: expected a Python file whose name can be imported, such as my_eeg.py")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: cannot be read ({error.strerror})") from error
    if (known := sys.modules.get(name)) is not None and known.__dict__.get("_content") == content:
        return known
    # Pickle imports a module by its name, and before it what is around it.
    around = sys.modules.setdefault(_PREFIX.rstrip("."), ModuleType(_PREFIX.rstrip(".")))
    around.__path__ = []
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    module.__dict__["_content"] = content
    before, imported = sys.modules.get(name), set(sys.modules)
    sys.modules[name] = module
    try:
        # The bytes that were read and compared, not the file: it may change in between.
        exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)  # what a plug-in is
        _refuse_siblings(path, set(sys.modules) - imported)
    except BaseException as error:
        fault = (fault_in(error) or f"{path}: {_words(error)}") + _lacks_sibling(error, path)
        # After Ctrl-C, too: the next import must not find a module that has run by half.
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        if isinstance(error, SystemExit | Exception):
            raise PluginError(fault) from error
        raise
    return module


def modules() -> dict[str, ModuleType]:
    """Return the plug-ins that this process has run, by their names."""
    return {name: module for name, module in sys.modules.items() if name.startswith(_PREFIX)}


def restore(known: Mapping[str, ModuleType]) -> None:
    """Give the names of plug-ins to these modules again, and to no others."""
    for name in modules().keys() - known.keys():
        del sys.modules[name]
    sys.modules.update(known)


def _refuse_siblings(path: Path, imported: set[str]) -> None:
    """Raise PluginError where a plug-in imported a module beside it: a run keeps no copy of that."""
    for name in sorted(name for name in imported - {*_OURS} if "." not in name):
        file = Path(getattr(sys.modules[name], "__file__", None) or "/")
        if path.parent.resolve() in (file.parent.resolve(), file.parent.parent.resolve()):
            # It would be there, and no more be noticed, the next time.
            for sibling in [each for each in sys.modules if each.partition(".")[0] == name]:
                del sys.modules[sibling]
            raise PluginError(f"{path}: imports {name} from {file}, of which a run keeps no copy; {_ONE_FILE}")


def _lacks_sibling(error: BaseException, path: Path) -> str:
    """Return the remedy where a plug-in wants to import a module that lies beside it."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    is_beside = name and any((path.parent / place).is_file() for place in (f"{name}.py", f"{name}/__init__.py"))
    return f"; {_ONE_FILE}" if is_beside else ""


def is_of_plugin(kind: type) -> bool:
    """Return whether a class stands in a plug-in."""
    return kind.__module__.startswith(_PREFIX)


def place_of(thing: Any) -> str:  # noqa: ANN401  # a class or a function
    """Return file and line of a class or a function of a plug-in."""
    # Of a decorated function inspect would give the decorator's file with the function's line.
    thing = getattr(thing, "__wrapped__", thing)
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return str(thing.__module__)


def fault_in(error: BaseException) -> str:
    """Return what a plug-in did wrong, with the line of it that is nearest to the error; nothing where none did."""
    if isinstance(error, PluginError):
        return str(error)
    # A file with a syntax error never ran: there is no frame of it in the traceback.
    if isinstance(error, SyntaxError) and error.filename in _files():
        return f"{error.filename}:{error.lineno}: {_words(error)}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).startswith(_PREFIX):
            return f"{frame.f_code.co_filename}:{line}: in {frame.f_code.co_name}, {_words(error)}"
    return ""


def fault_in_sample(error: BaseException) -> PluginError | None:
    """Return the fault of a plug-in that read a sample; None where the sample is bad, which a ValueError says."""
    if isinstance(error, PluginError):
        return error
    # A plug-in's own mistake is in its code, not in the sample: counted as bad samples it would end the run with the
    # wrong sentence, or below the rate with none.
    fault = "" if isinstance(error, ValueError) else fault_in(error)
    return PluginError(f"{fault}; what is wrong with a sample is a ValueError") if fault else None


def paths() -> tuple[Path, ...]:
    """Return the plug-ins that this process has run, for a process of its own to run too."""
    return tuple(map(Path, _files()))


def _files() -> list[str]:
    return [str(module.__file__) for module in modules().values()]


def _words(error: BaseException) -> str:
    words = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return cut(f"{type(error).__name__}: {words}" if words else type(error).__name__)
