"""What a class of a plug-in must agree on with the class of ours that it is derived from.

A wrong method would show itself in our code, far from the line that is to be corrected. So its parameters are compared
with ours when the plug-in is read, and what it returns is checked whenever it is called:

    class MyEeg(Modality)          Modality
        def prepare(self, found)   prepare(found, rng)     -> refused at once, with its line
        def shape(self)            shape, a property       -> refused at once
        def prepare(...)           Prepared(array, ...)    -> a call that returns an array is refused then
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from types import MappingProxyType
from typing import Any

from data_shards.files.plugin_files import PluginError, is_of_plugin, place_of
from data_shards.files.quoting import cut

DTYPES = frozenset({"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})
"""Types that arrays have in numpy and in torch under one name."""
Rule = tuple[Callable[[Any], bool], str]
"""What a method may return, as a question and in words."""


def hold(own: type[Any], base: type[Any]) -> None:
    """Refuse a class that overrides something of ours by something else; let its methods check what they return."""
    for name, ours in _of_ours(own).items():
        theirs = inspect.getattr_static(own, name)
        if theirs is not ours:
            _check_override(own, name, theirs, ours)
    for name, rule in _RETURNS.get(base.__name__, {}).items():
        thing = vars(own).get(name)
        function = _function(thing)
        # A file that has not changed is not run anew for the next configuration: its methods are held to it by then.
        if function is not None and not hasattr(function, "__wrapped__"):
            _replace(own, name, thing, _checking(own, function, rule))
    dtype = getattr(own, "dtype", "float32")
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise PluginError(
            f"{place_of(own)}: {own.__name__}.dtype is {dtype!r}, expected one of {', '.join(sorted(DTYPES))}"
        )
    # A property says its type only when it is called, and is checked there as any method.
    if not isinstance(dtype, str | property):
        raise PluginError(
            f"{place_of(own)}: {own.__name__}.dtype is {dtype!r}, expected the name of a type, such as float32"
        )


def _checking(own: type[Any], function: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """Return the function such that it refuses to return what it may not."""
    is_right, expected = rule

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # of any method
        found = function(*args, **kwargs)
        # A generator would fail later, in our code. It yields but once, so the list takes its place.
        if inspect.isgenerator(found):
            found = list(found)
        if not is_right(found):
            place, name = place_of(function), f"{own.__name__}.{function.__name__}"
            raise PluginError(f"{place}: {name} returned {cut(' '.join(repr(found).split()))}, expected {expected}")
        return found

    return checked


def _replace(own: type[Any], name: str, thing: object, function: Callable[..., Any]) -> None:
    """Put a function into a class, as the kind of method or property that the thing in its place is."""
    if isinstance(thing, property):
        setattr(own, name, property(function))
    elif isinstance(thing, cached_property):
        # The body of a class tells it its name, setattr() does not; without one its first use raises TypeError.
        setattr(own, name, cached := cached_property(function))
        cached.__set_name__(own, name)
    else:
        setattr(own, name, type(thing)(function) if isinstance(thing, staticmethod | classmethod) else function)


def _of_ours(own: type[Any]) -> dict[str, Any]:
    """Return the methods and properties that a plug-in's class has of ours, by name, without those of Python."""
    found: dict[str, Any] = {}
    # In reverse, so that a method counts as the class of ours has it that theirs is nearest to.
    for base in reversed(own.__mro__):
        if base is not object and not is_of_plugin(base):
            found |= {name: each for name, each in vars(base).items() if _function(each) and not name.startswith("_")}
    return found


def _check_override(own: type[Any], name: str, theirs: object, ours: object) -> None:
    call, expected = _function(theirs), _function(ours)
    assert expected is not None
    place, is_property = (
        f"{place_of(call or own)}: {own.__name__}.{name}",
        isinstance(theirs, property | cached_property),
    )
    if isinstance(ours, property | cached_property):
        # A plain value in the place of a property is right, such as hides = True in the body of the class.
        if call is not None and not is_property:
            raise PluginError(f"{place} is a method; write @property above it")
        return
    if call is None or is_property:
        raise PluginError(f"{place} is no method, but {_words(name, expected)}")
    if isinstance(ours, staticmethod) and not isinstance(theirs, staticmethod):
        raise PluginError(f"{place} has no self; write @staticmethod above it")
    wanted = [each for each in inspect.signature(expected).parameters.values() if each.name not in ("self", "cls")]
    # Positional parameters may have other names, and there may be more with defaults: bind() asks as our calls do.
    places = [None] * sum(each.kind != each.KEYWORD_ONLY for each in wanted)
    keys = {each.name: None for each in wanted if each.kind == each.KEYWORD_ONLY}
    itself = [] if isinstance(theirs, staticmethod) else [None]
    try:
        inspect.signature(call).bind(*itself, *places, **keys)
    except TypeError as error:
        raise PluginError(f"{place} {_words(name, expected)}: {error}") from error


def _words(name: str, function: Callable[..., Any]) -> str:
    given = ", ".join(each for each in inspect.signature(function).parameters if each not in ("self", "cls"))
    return f"is called as {name}({given})"


def _function(thing: object) -> Callable[..., Any] | None:
    """Return the function in a method or a property; None for anything else."""
    for inner in ("fget", "func", "__func__"):
        thing = getattr(thing, inner, thing)
    return thing if inspect.isfunction(thing) else None


def _is_shape(found: object) -> bool:
    # Not isinstance(): True is an int to it, and no length.
    return isinstance(found, tuple) and all(type(length) is int and length >= 0 for length in found)


def _is_target(found: object) -> bool:
    return found is None or (
        isinstance(found, tuple) and len(found) == 2 and _is_shape(found[0]) and found[1] in DTYPES
    )


def _are_pairs(found: object) -> bool:
    return isinstance(found, list | tuple) and all(isinstance(each, tuple) and len(each) == 2 for each in found)


def _are_roles(found: object) -> bool:
    return isinstance(found, dict) and "" in found and all(isinstance(each, tuple) for each in found.values())


def _is_module(found: object) -> bool:
    from torch import nn

    return isinstance(found, nn.Module)


def _is_optimizer(found: object) -> bool:
    import torch

    return isinstance(found, torch.optim.Optimizer)


def _is_adapter(found: object) -> bool:
    from torch import nn

    if not isinstance(found, nn.Module):
        return False
    # Coordinates are a third argument, of inputs that have them.
    takes = inspect.signature(found.forward)
    return any(_binds(takes, count) for count in (2, 3))


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _are_metrics(found: object) -> bool:
    from trainer.tasks.metric import Metric

    if not isinstance(found, tuple) or not found or not all(isinstance(each, Metric) for each in found):
        return False
    # Of two of one name one would be lost.
    return len({each.name for each in found}) == len(found)


def _are_rows(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(row, dict) and all(isinstance(name, str) and _is_cell(cell) for name, cell in row.items())
        for row in found
    )


def _is_cell(found: object) -> bool:
    # A tensor or a number of numpy is what JSON does not know, which writing the row would find.
    if isinstance(found, list | tuple):
        return all(map(_is_cell, found))
    return found is None or isinstance(found, str | float | int) or _has("AnsweredFile")(found)


def _has(name: str) -> Callable[[Any], bool]:
    """Ask whether a value is of a class of ours or derived from it, by its name: nothing is imported for it."""
    return lambda found: any(base.__name__ == name for base in type(found).__mro__)


_PROBLEMS: Rule = (_are_pairs, "pairs of a key and a sentence, by yield")
_COST: Rule = (_has("Cost"), "a Cost")
_MODULE: Rule = (_is_module, "a module of PyTorch")
_NUMBER: Rule = (lambda found: isinstance(found, int), "a whole number")
_RETURNS: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "Modality": {
            "shape": (_is_shape, "a tuple of whole numbers, the length of each axis"),
            "dtype": (lambda found: found in DTYPES, f"one of {', '.join(sorted(DTYPES))}"),
            "sizes": (lambda found: isinstance(found, dict), "a dict of the sizes of the network's input, by name"),
            "roles": (_are_roles, 'a dict of tuples of patterns, under "" those of the main member'),
            "target": (_is_target, "None, or shape and dtype"),
            "prepare": (_has("Prepared"), "Prepared(array, length)"),
            "decoded_shape": (lambda found: isinstance(found, tuple), "a tuple, the shape"),
            "of_evaluation": (_has("Modality"), "a section such as itself"),
            "problems": _PROBLEMS,
        },
        "Input": {
            "adapter": (_is_adapter, "a module of PyTorch whose forward takes (array, dtype)"),
            "cost": _COST,
            "kept": (_has("Kept"), "a Kept"),
            "grid": (_is_shape, "a tuple of whole numbers, the tokens along each axis"),
            "shape": (_is_shape, "a tuple of whole numbers, the length of each axis"),
            "problems": _PROBLEMS,
            "joint_problems": _PROBLEMS,
        },
        "Output": {
            "own_width": _NUMBER,
            "num_queries": _NUMBER,
            "queries": _MODULE,
            "head": _MODULE,
            "queries_cost": _COST,
            "head_cost": _COST,
            "wanted": (_are_pairs, "a tuple of pairs, such as (('label', ''),)"),
            "named": (_has("Output"), "an output such as itself"),
            "problems": _PROBLEMS,
            "network_problems": _PROBLEMS,
        },
        "CustomNetwork": {"module": _MODULE, "problems": _PROBLEMS},
        "RunOptimizer": {
            "make": (_is_optimizer, "an optimizer of PyTorch"),
            "problems": _PROBLEMS,
        },
        "Task": {
            "metrics": (
                _are_metrics,
                "a tuple of Metric with names of their own, the first of which says which checkpoint is the best",
            ),
            "measurement": (_has("Measurement"), "a Measurement"),
            "rows": (_are_rows, "a list with a dict a sample, of texts, numbers, None, lists of them, or files"),
        },
    }
)
