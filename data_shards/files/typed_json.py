"""JSON files as dataclasses. The type of every value is checked, because a file can be wrong.

Standard library only, see atomic.py.
"""

import json
import os
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

MAX_BYTES = 1 << 30
"""A larger file is none of ours, and reading it would take the memory."""

T = TypeVar("T")


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a file; ValueError names the file and says why it cannot be read."""
    try:
        return parse_object(_read(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({_why(error)})") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the object that a text is; ValueError where it is none."""
    try:
        content = json.loads(text)
    # json calls itself for each bracket. It is no ValueError, so callers would not expect it.
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, got {_named(content)}")  # noqa: TRY004  # the file is wrong, not the call
    return content


def read(schema: type[T], path: Path) -> T:
    """Return the dataclass in a file; ValueError names the file, the key, what was expected and what came."""
    content = read_object(path)
    try:
        return typed(schema, content)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


def typed(schema: type[T], content: object, where: str = "") -> T:
    """Return the dataclass with these fields; ValueError names the key, what was expected and what came."""
    if not isinstance(content, dict):
        raise ValueError(f"{where or 'content'}: expected an object, got {_named(content)}")  # noqa: TRY004
    hints = get_type_hints(schema)
    # An unknown key is mostly a key of another release, or a slip: passed over in silence it would change what is
    # meant.
    if unknown := sorted(map(str, content.keys() - hints.keys())):
        raise ValueError(f"{_key(where, unknown[0])}: is unknown")
    for each in fields(schema):  # type: ignore[arg-type]  # a dataclass
        if each.name not in content and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{_key(where, each.name)}: is missing")
    return schema(**{name: _value(hints[name], value, _key(where, name)) for name, value in content.items()})


def texts(content: object, where: str) -> tuple[str, ...]:
    """Return a list of texts; ValueError where it is something else."""
    found: tuple[str, ...] = _value(tuple[str, ...], content, where)
    return found


def _read(path: Path) -> bytes:
    # Four calls and one for its end: a thousand ranks and as many attempts leave a file each.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        num_bytes = os.fstat(descriptor).st_size
        if num_bytes > MAX_BYTES:
            raise ValueError(f"has more than {MAX_BYTES} bytes")
        return b"".join(iter(lambda: os.read(descriptor, num_bytes + 1), b""))
    finally:
        os.close(descriptor)


def _value(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401  # annotations have no type
    """Return a value as an annotation has it: a list becomes a tuple, a whole number a float."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(inner, value, where)
    if is_dataclass(kind):
        return typed(kind, value, where)  # type: ignore[arg-type]  # a class
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], part, f"{where}[{index}]") for index, part in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _value(inner[1], part, _key(where, name)) for name, part in value.items()}
    # A whole number stands for a float, too: to JSON 1 and 1.0 are one number.
    if kind is float and _is_whole(value):
        return float(value)  # type: ignore[arg-type]  # it is a number
    if _is_whole(value) if kind is int else type(value) is kind:
        return value
    raise ValueError(f"{where}: expected {_kind_name(kind)}, got {_named(value)}")


def _one_of(kinds: tuple[Any, ...], value: object, where: str) -> Any:  # noqa: ANN401
    if int in kinds and _is_whole(value):
        return value  # stays one where a number with a point may stand too
    problem = ValueError(f"{where}: nothing may stand here")
    for kind in kinds:
        try:
            return _value(kind, value, where)
        except ValueError as error:
            problem = error if kind is not NoneType else problem
    raise problem


def _is_whole(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a whole number of 64 bits."""
    # type() and not isinstance: true is an int to Python. Beyond 64 bits neither numpy nor torch could hold the number.
    return type(value) is int and -(2**63) <= value < 2**63


def _key(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _kind_name(kind: Any) -> str:  # noqa: ANN401
    origin = get_origin(kind) or kind
    words = {tuple: "a list", dict: "an object", str: "a text", int: "a whole number", float: "a number"}
    return words.get(origin, getattr(origin, "__name__", str(origin)))


def _named(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]} ..."


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
