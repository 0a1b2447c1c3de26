"""Values that OmegaConf wrongly accepts: a list or a mapping in place of one value, inside a list or mapping."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from data_shards.files.quoting import shown


def misplaced(owner: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) of every list or mapping of a dataclass that stands where a single value belongs."""
    hints = get_type_hints(type(owner))
    for field in fields(owner):  # type: ignore[arg-type]  # a dataclass
        yield from _below(hints[field.name], getattr(owner, field.name), f"{prefix}{field.name}")


def _below(kind: Any, value: object, key: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # annotations have no type
    if is_dataclass(value):
        yield from misplaced(value, f"{key}.")
    elif isinstance(value, dict | list | tuple):
        # A section of named entries holds Any (choice.py), in which a list or a mapping is out of place.
        inner = _parts(kind)
        if not inner:
            yield key, f"expected a single value, got {shown(value)}"
            return
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in named:
            yield from _below(inner, part, f"{key}.{name}" if isinstance(value, dict) else f"{key}[{name}]")


def _parts(kind: Any) -> Any:  # noqa: ANN401
    """Return the type of what a list or mapping of this type holds; nothing for a type of single values."""
    origin, inner = get_origin(kind), get_args(kind)
    # An optional section: None holds nothing, and the other type decides.
    if origin in (Union, UnionType):
        return next(filter(None, map(_parts, inner)), None)
    if origin is dict:
        return inner[1]
    return inner[0] if origin in (list, tuple) else None
