"""Strict reading of a dataclass: defaults < YAML file < key=value. All problems are reported at once.

    YAML file, key=value --> pairs of a dotted key and a value, later ones win
                         --> key={} and NAME=null take earlier pairs away
                         --> merged into the defaults at once; where that fails, one by one, for a sentence a key
                         --> the dataclass --> its own problems()

A user who corrects a file wants all its faults at once. OmegaConf stops at the first.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from configs.choice import choices, seeded, without_removed
from configs.containers import misplaced
from configs.files import ConfigError, keys_and_values_of, leaves, located
from configs.input_files import make_absolute
from configs.yaml_text import parse
from data_shards.files.quoting import cut, listed, shown


class Schema(Protocol):
    """A frozen dataclass, whose defaults are a valid configuration or nearly so, that knows its own problems."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every contradiction."""
        ...


S = TypeVar("S", bound=Schema)
_MERGE_ERRORS = (OmegaConfBaseException, TypeError, ValueError)
_OMEGACONF_WORDS = MappingProxyType(
    {
        "'DictConfig'": "keys and values",
        "'ListConfig'": "list",
        "DictConfig": "keys and values",
        "ListConfig": "list",
        "TupleConfig, list, ": "",
        # Of what stands in a list it leaves these as they are.
        "Value '$VALUE' of type '$VALUE_TYPE'": "Value of another type",
    }
)
_REFERENCE = re.compile(r"\$\{[\w.]+\}")


def read(schema: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Return a `schema`: its defaults, overwritten by the YAML file, overwritten by key=value.

    Raises ConfigError with every problem at once: unknown keys, wrong types, missing or contradictory values.
    """
    problems: list[str] = []
    keys_and_values = [*keys_and_values_of(path, problems), *_parse(overrides, problems)]
    problems += _interpolation_problems(keys_and_values)
    keys_and_values = _after_clearing(pair for pair in keys_and_values if not _is_no_value(pair[1]))
    named = tuple(choices(schema))
    defaults, keys_and_values = seeded(schema, named, without_removed(named, keys_and_values), problems)
    try:
        config = OmegaConf.merge(defaults, *_layers(keys_and_values))
    except _MERGE_ERRORS:
        # Only one by one does every wrong key get its sentence; each merge copies the whole, which takes 10 ms.
        problems += _merge_problems(defaults, keys_and_values)
    if problems:
        raise ConfigError(str(path), [*problems, *_unknown_names(defaults, keys_and_values)])
    assert isinstance(config, DictConfig)
    # After the merge: an override may name a file as well as the file that it overrides.
    make_absolute(config, located(path).parent)
    return _checked(schema, config, keys_and_values, str(path))


def asked(key: str, path: Path, overrides: Sequence[str] = ()) -> Any:  # noqa: ANN401  # whatever stands there
    """Return what is asked for a key, before anything is checked; None where it is not set."""
    values = [value for name, value in (*keys_and_values_of(path), *_parse(overrides, [])) if name == key]
    return values[-1] if values else None


def _merge_problems(defaults: DictConfig, keys_and_values: Sequence[tuple[str, Any]]) -> Iterator[str]:
    config: Any = defaults
    for key, value in keys_and_values:
        try:
            config = OmegaConf.merge(config, _nested(key, value))
        except _MERGE_ERRORS as error:
            yield f"{key} = {shown(value)}: {_explain(defaults, key, value, error)}"


def _unknown_names(defaults: DictConfig, keys_and_values: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """Yield a sentence for every name that a plug-in may add and none did: such a key is text for OmegaConf."""
    for key, value in dict(keys_and_values).items():
        parent, _, name = key.rpartition(".")
        section = _at(defaults, parent) if parent else defaults
        owner = OmegaConf.get_type(section) if OmegaConf.is_config(section) else None
        for field in fields(owner) if is_dataclass(owner) else ():
            if field.name == name and "unknown" in field.metadata and isinstance(value, str):
                sentence = field.metadata["unknown"](value)
                yield from [f"{key} = {shown(value)}: {sentence}"] if sentence else []


def _checked(schema: type[S], config: DictConfig, keys_and_values: Sequence[tuple[str, Any]], source: str) -> S:
    try:
        run = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        # Only what refers to another key was not converted before; not every error of OmegaConf says which it is.
        references = [name for name, value in keys_and_values if "${" in str(value)]
        key = getattr(error, "full_key", None) or listed(references)
        raise ConfigError(source, [f"{key}: {_first_line(error)}"]) from error
    assert isinstance(run, schema)
    problems = [f"{key}: {sentence}" for key, sentence in misplaced(run)]
    # Only where every value stands in its place: sizes are computed from them, and a list would be a TypeError there.
    problems = problems or [
        f"{key} = {_value(config, keys_and_values, key)}: {sentence}" for key, sentence in _contradictions(run)
    ]
    if problems:
        raise ConfigError(source, problems)
    return run


def _contradictions(run: Schema) -> list[tuple[str, str]]:
    """Return the (key, sentence) of every contradiction, as far as they can be computed."""
    found = []
    try:
        for problem in run.problems():
            found.append(problem)  # what came before an error counts
    except ArithmeticError:
        # A size of 0 was reported by then; what is computed from it cannot be.
        if not found:
            raise
    return found


def _value(config: DictConfig, keys_and_values: Sequence[tuple[str, Any]], key: str) -> str:
    """Return the value of a key; of a section only what the user set."""
    value = _at(config, key)
    if isinstance(value, DictConfig):
        value = {name.removeprefix(f"{key}."): part for name, part in keys_and_values if name.startswith(f"{key}.")}
    return shown(value)


def _parse(overrides: Sequence[str], problems: list[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"{override}: expected key=value, such as train.steps=1000")
            continue
        try:
            value = parse(text)
        # What is not YAML is text, such as a name that begins with @.
        except ValueError:
            value = text
        # An override may set a whole section, as in train={steps: 9}.
        yield from leaves({key: value})


def _after_clearing(keys_and_values: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the pairs without those that a later `key={}` takes back: merging nothing changes nothing."""
    kept: list[tuple[str, Any]] = []
    for key, value in keys_and_values:
        if value == {}:
            kept = [pair for pair in kept if not f"{pair[0]}.".startswith(f"{key}.")]
        kept.append((key, value))
    return kept


def _interpolation_problems(keys_and_values: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """Yield a sentence for every value that is none, or would be replaced by more than another of the configuration.

    OmegaConf's ${oc.env:NAME} and its like would carry the environment of whoever starts a run into its files and URLs.
    """
    for key, value in keys_and_values:
        if _is_open(value):
            yield f"{key} = {shown(value)}: is left open; write a value"
        if _is_foreign(value):
            yield (
                f"{key} = {shown(value)}: only ${{key}} of another key of the configuration is replaced, nothing of "
                "the environment; write the value itself (a line of shell may have $NAME)"
            )


def _is_open(value: object) -> bool:
    # OmegaConf's word for a value to come, which a merge skips in silence.
    return value == "???" or (isinstance(value, list) and any(map(_is_open, value)))


def _is_no_value(value: object) -> bool:
    return _is_open(value) or _is_foreign(value)


def _is_foreign(value: object) -> bool:
    return "${" in _REFERENCE.sub("", str(value))


def _layers(keys_and_values: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return the pairs as few nested mappings to merge in this order; no key stands twice in one.

    A mapping a pair would be merged to the same, in twice the time. A value that a later one replaces is merged, too:
    it may be wrong.
    """
    layers: list[dict[str, Any]] = []
    for key, value in keys_and_values:
        # A copy of {}: later keys are put into it, and a problem is told with what the user wrote.
        own = {} if value == {} else value
        if not layers or not _put(layers[-1], key, own):
            layers.append(_nested(key, own))
    return layers


def _put(layer: dict[str, Any], key: str, value: object) -> bool:
    """Put a value into a nested mapping, if nothing is in its place yet, and return whether it was put."""
    *sections, last = key.split(".")
    place: Any = layer
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            return False
    if last in place:
        return False
    place[last] = value
    return True


def _nested(key: str, value: object) -> dict[str, Any]:
    name, _, rest = key.partition(".")
    return {name: _nested(rest, value) if rest else value}


def _explain(defaults: DictConfig, key: str, value: object, error: Exception) -> str:
    parent, _, name = key.rpartition(".")
    owner = getattr(error, "object_type", None)
    if isinstance(error, ConfigKeyError) and isinstance(owner, type) and is_dataclass(owner):
        # What is unknown may be a section around the key.
        place, _, name = str(error.full_key).rpartition(".")
        parent = place or parent
        known = [field.name for field in fields(owner)]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {parent}.{close[0]}?" if close and parent else f"known are {', '.join(close or known)}"
        return f"unknown key; {hint}"
    if "is not a subclass of" in str(error):
        return f"expected a section with keys of its own, {key}.NAME=..., got {type(value).__name__}"
    above = [".".join(key.split(".")[:depth]) for depth in range(1, key.count(".") + 1)]
    if lists := [
        each for each in above if OmegaConf.is_config(at := _at(defaults, each)) and not OmegaConf.is_dict(at)
    ]:
        return f"{lists[0]} is a list, such as [...], and has no names"
    if "is not a list" in (words := _first_line(error)):
        return f"{words}; write a list, such as {_as_list(value)}"
    # Of a section that is not set nothing is known here, and None is no default of its keys.
    is_known = not parent or OmegaConf.is_config(_at(defaults, parent))
    default = _at(defaults, key)
    remedy = f"; the default is {default!r}" if is_known and not OmegaConf.is_config(default) else ""
    return _first_line(error) + remedy


def _as_list(value: object) -> str:
    """Return a list of what was written, with quotes where YAML would read it otherwise."""
    if not (isinstance(value, str) and value[:1] == "[" and value[-1:] == "]"):
        return f"[{cut(str(value))}]"
    return "[" + ", ".join(f'"{part.strip()}"' for part in cut(value[1:-1]).split(",")) + "]"


def _at(config: DictConfig, key: str) -> Any:  # noqa: ANN401  # whatever stands there
    """Return the value of a key; None where there is none, such as a name within a list."""
    try:
        return OmegaConf.select(config, key, throw_on_missing=False)
    except OmegaConfBaseException:
        return None


def _first_line(error: Exception) -> str:
    if "is not a subclass of" in str(error):
        return "expected a section with keys of its own, got a single value"
    words = str(error).splitlines()[0].rstrip(".")
    for name, plain in _OMEGACONF_WORDS.items():
        words = words.replace(name, plain)
    return cut(words)
