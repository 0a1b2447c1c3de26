"""The files of a configuration: where one is looked up, what stands in it, and the files that it includes.

    include: digits                    # a file beside this one, or the name of one that comes with the product
    include: [paper/p1, my_training]   # or several: what a later one says counts
    model.num_latents: 1024            # what this file says replaces what the included ones say, key by key

One level: a file that is included includes no other.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from configs.yaml_text import MOST_CHARACTERS, parse
from data_shards.files.quoting import counted, shown

INCLUDE = "include"
"""The key of a file that names the one, or the list of those, that it is laid over."""


class ConfigError(ValueError):
    """Every problem of a configuration at once, each with its key, value and remedy."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__("\n  ".join([f"{counted(len(problems), 'problem')} in {source}:", *problems]))
        self.problems = tuple(problems)


def keys_and_values_of(path: Path, problems: list[str] | None = None) -> list[tuple[str, Any]]:
    """Return (dotted key, value) of everything in a file, after everything in the files that it includes.

    The later of two values of one key counts. Sentences about keys that a file has twice are added to `problems`.
    ConfigError where a file cannot be read.
    """
    content = read_yaml(path)
    found = []
    if INCLUDE in content:
        names = content.pop(INCLUDE)
        # An empty list is taken for a name too, and refused as one.
        for name in names if isinstance(names, list) and names else [names]:
            found += _of_included(path, name, problems)
    # The file's own values come last, and the last of two counts.
    return found + _leaves_once(content, problems)


def sections_of(path: Path) -> set[str]:
    """Return the top-level keys of a file and of those that it includes."""
    return {key.partition(".")[0] for key, _ in keys_and_values_of(path)}


def located(path: Path) -> Path:
    """Return the file of a configuration, of a name such as digits or paper/p1 the one that comes with the product.

    configs/digits.yaml is that too where the working directory has no configs/ of its own. A file of that name hides
    ours; a folder does not.
    """
    is_name = not path.suffix or (path.parts[:1] == ("configs",) and not Path("configs").exists())
    is_file = path.exists() and not path.is_dir()
    # What leads upwards is a path of the user's: a name stays within our folder.
    if is_file or path.is_absolute() or not is_name or ".." in path.parts:
        return path
    name = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    known = Path(__file__).parent / name.with_suffix(".yaml")
    return known if known.is_file() else path


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file; ConfigError where it cannot be read, or is something else."""
    path = located(path)
    if not path.is_file():
        raise ConfigError(str(path), [f"no such file; {_named(path)}"])
    try:
        with path.open(encoding="utf-8") as file:
            # What is longer is refused whatever follows.
            content = parse(file.read(MOST_CHARACTERS + 1))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"not YAML: {' '.join(str(error).split())}"]) from error
    except ValueError as error:
        raise ConfigError(str(path), [str(error)]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), [f"expected keys and values, got {type(content).__name__}"])
    return content


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in a tree that is not itself a filled tree."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def _of_included(path: Path, name: object, problems: list[str] | None) -> list[tuple[str, Any]]:
    """Return (dotted key, value) of everything in the file that `include: name` of a file means."""
    base = _included(path, name)
    if INCLUDE in (tree := read_yaml(base)):
        sentence = f"includes {shown(tree[INCLUDE])} itself; only one level is read: include one of the two"
        raise ConfigError(str(path), [f"{INCLUDE} = {shown(name)}: {sentence}"])
    return [(key, _beside(base, key, value)) for key, value in _leaves_once(tree, problems)]


def _named(path: Path) -> str:
    """Return in words which run was meant, of those that come with the product, or which there are."""
    ours = Path(__file__).parent
    names = [file.stem for file in sorted(ours.glob("*.yaml"))]
    recipes = [file.stem for file in sorted((ours / "recipes").glob("*.yaml"))]
    if close := difflib.get_close_matches(path.with_suffix("").name, recipes, n=1, cutoff=0.8):
        return f"did you mean recipes/{close[0]}?"
    return f"the named runs are {', '.join(names)}, by these names, and recipes/NAME (docs/recipes.md)"


def _included(path: Path, name: object) -> Path:
    """Return the file that `include: name` of a file means: the one beside it, else one that comes with the product."""
    if not isinstance(name, str) or not name:
        raise ConfigError(str(path), [f"{INCLUDE} = {shown(name)}: expected the name of a file, or a list of names"])
    beside = located(path).parent / name
    base = beside if beside.is_file() else located(Path(name))
    if not base.is_file():
        raise ConfigError(str(path), [f"{INCLUDE} = {shown(name)}: no such file, neither {beside} nor one of ours"])
    return base


def _beside(base: Path, key: str, value: Any) -> Any:  # noqa: ANN401  # whatever stands there
    """Return a value of an included file, plug-ins and tokenizers with the places where that file means them."""
    # Relative to the file that names them: the one that includes it may stand elsewhere.
    if key == "plugins" and isinstance(value, list):
        return [_beside(base, "", name) for name in value]
    is_name = isinstance(value, str) and bool(value) and key.rpartition(".")[2] in ("", "tokenizer")
    return str(base.parent / value) if is_name and (base.parent / value).is_file() else value


def _leaves_once(tree: dict[str, Any], problems: list[str] | None) -> list[tuple[str, Any]]:
    found = list(leaves(tree))
    if problems is not None:
        problems += _twice(key for key, _ in found)
    return found


def _twice(keys: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for every key that a file has twice: in its section, and in one piece with its dots."""
    for key, count in Counter(keys).items():
        if count > 1:
            yield f"{key}: stands {count} times in the file; leave one"
