"""YAML within limits: a small file stays small when parsed, and no key occurs twice.

    text --> events: depth and number, in a loop --> nodes: aliases counted, keys twice --> values

Ten lines of aliases can stand for a thousand million values, and deep nesting ends PyYAML in a RecursionError. The
configuration of a run of somebody else is read before anything else is known of it.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

MOST_CHARACTERS = 1 << 18
MOST_VALUES = 20_000
"""Counted as they are read: an alias counts as all that it stands for."""
DEEPEST = 40


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}


class _Loader(yaml.SafeLoader):
    """YAML without dates, and with decimal numbers alone: a folder or a split may be named 2026-01-01.

    To YAML 1.1 an account 0123 is 83, a partition 2024_10 is 202410, and a time of 10:00 is 600. A key that wants a
    number still takes 1_000.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own name for it
        first: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# What the constructors of PyYAML raise for a value that its tag does not fit, such as `!!int ''`.
_CONSTRUCTION_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError)


def parse(text: str) -> Any:  # noqa: ANN401
    """Return the values of a YAML text; ValueError says in one line why it is refused."""
    # A copy, since its caller takes keys out of it, such as include, and the next one gets the same from the cache.
    return deepcopy(_values(text))


# A start reads a file for its plug-ins, and again for the rest.
@lru_cache(maxsize=16)
def _values(text: str) -> Any:  # noqa: ANN401
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"has more than {MOST_CHARACTERS} characters, too many for a configuration")
    _check_events(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except _CONSTRUCTION_ERRORS as error:
        raise ValueError(_one_line(error)) from error
    finally:
        loader.dispose()


def _check_events(text: str) -> None:
    """Raise ValueError where the text nests too deeply or has too many values: the parser below is recursive."""
    depth = 0
    try:
        for number, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"nests deeper than {DEEPEST} levels; a configuration has less than ten")
            # A value is one event, or two where it is a list or a mapping that ends, too.
            if number > 2 * MOST_VALUES:
                raise _too_many()
    except yaml.YAMLError as error:
        raise ValueError(_one_line(error)) from error


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return how many values a node stands for; ValueError for too many, for one in itself, and for a key twice.

    `counted` has the nodes seen before; 0 is of one that is not left yet.
    """
    if counted.setdefault(id(node), -1) == 0:
        raise ValueError("has an alias to what it is part of; write the values out")
    if counted[id(node)] > 0:
        return counted[id(node)]
    # PyYAML puts the very node in the place of its alias, so each node is walked once, however much it stands for.
    counted[id(node)] = 0
    counted[id(node)] = 1 + sum(_count(part, counted) for part in _parts(node))
    if counted[id(node)] > MOST_VALUES:
        raise _too_many()
    return counted[id(node)]


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the nodes directly in a node; ValueError where a mapping has a key twice."""
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ValueError(f"has the key {key.value!r} twice in one place; remove one of the two")
            seen.add(str(key.value))
            yield from (key, value)


def _too_many() -> ValueError:
    return ValueError(
        f"has more than {MOST_VALUES} values, what its aliases stand for included; write out what is meant"
    )


def _one_line(error: Exception) -> str:
    return f"not YAML: {' '.join(str(error).split()) or type(error).__name__}"
