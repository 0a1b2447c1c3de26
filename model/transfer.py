"""Weights of one network for another: what fits is taken, what does not is listed, and nothing scrambles.

weights of the source -- rename --> names -- drop --> kept -- same shape --> taken
                                                          -- a table, resize --> resized
                                                          -- else --> left over; the network's own stay as drawn
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config.initial_weights import InitialWeightsConfig
from model.config.perceiver import PerceiverConfig
from model.parameters import Table

T = TypeVar("T")
# PyTorch has cubic interpolation for two axes alone.
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Transfer:
    """The result for each tensor."""

    weights: dict[str, Tensor]
    """The tensors to load, under the names of the network."""
    resized: tuple[str, ...]
    """The tensors among them whose rows were interpolated, or cut and filled up."""
    drawn: dict[str, str]
    """Tensors of the network that keep the weights that were drawn for them, with the reason."""
    unused: tuple[str, ...]
    """Tensors of the source that nothing took."""


@dataclass(frozen=True)
class Meaning:
    """What tensors mean in a source and here, by their names in this network, where their shapes do not say it."""

    foreign: Mapping[str, str] = field(default_factory=dict)
    """Tensors whose rows stand for other things there, with the reason: they stay as drawn."""
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Tensors whose rows are in another order there: the row of the source for each row here."""


_THE_SAME = Meaning()


def transfer(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    grids: Mapping[str, tuple[int, ...]],
    wanted: InitialWeightsConfig,
    meaning: Meaning = _THE_SAME,
) -> Transfer:
    """Return what the network takes of a source's weights; ValueError where it takes none, or one that is no number.

    `grids` has the grid of each table of the source, by parameter name, as `table_grids` gives them; a table that is
    not in it is resized only where it is a set of rows or has a single axis.
    """
    own, own_grids = network.state_dict(), table_grids(network)
    _refuse_idle(own, weights, wanted)
    renamed, old_grids = dict(_renamed(weights, wanted.rename)), dict(_renamed(grids, wanted.rename))
    taken, resized, drawn = dict[str, Tensor](), list[str](), dict[str, str]()
    for name, tensor in own.items():
        given, grid, old_grid = renamed.get(name), own_grids.get(name), old_grids.get(name)
        why = _refused(name, given, tensor, wanted, meaning)
        if given is None or why:
            drawn[name] = why
        # As many rows may be another grid, 4 x 9 or 6 x 6: then a row is another place.
        elif given.shape == tensor.shape and (not grid or grid == (old_grid or grid)):
            # In the network's own precision: a source may have been saved in half of it.
            taken[name] = _in_order(given, meaning.rows.get(name)).to(tensor.dtype)
        elif wanted.resize and (rows := _resized(given, tensor, grid, old_grid)) is not None:
            taken[name] = rows.to(tensor.dtype)
            resized.append(name)
        else:
            there, here = (given.shape, tensor.shape) if given.shape != tensor.shape else (old_grid or (), grid or ())
            drawn[name] = f"{tuple(there)} there, {tuple(here)} here"
    if not taken:
        # Of names that are there the renaming is not the remedy.
        if known := next((name for name in own if name in renamed), ""):
            raise ValueError(
                f"none of its {len(weights)} tensors fits: {known}: {drawn[known]}; drop fewer of them, or name the "
                "weights of a network like this one"
            )
        raise ValueError(
            f"none of its {len(weights)} tensors fits: the first is {next(iter(weights), 'none')}, this network's is "
            f"{next(iter(own))}; rename them with initial_weights.rename"
        )
    _refuse_no_numbers(taken)
    return Transfer(taken, tuple(resized), drawn, tuple(sorted(renamed.keys() - taken.keys())))


def _refused(name: str, given: Tensor | None, own: Tensor, wanted: InitialWeightsConfig, meaning: Meaning) -> str:
    """Return why a tensor is drawn, whatever its shape; nothing where it may be taken."""
    # First of all: what is dropped is drawn even where it would fit.
    if any(fnmatchcase(name, pattern) for pattern in wanted.drop):
        return "dropped"
    if given is None:
        return "not in the source"
    return meaning.foreign.get(name) or _other_type(given, own)


def _other_type(given: Tensor, own: Tensor) -> str:
    """Return why a tensor is no such weight: whole numbers may be those of a quantized one, whose unit is not there."""
    there, here = (str(each.dtype).removeprefix("torch.") for each in (given, own))
    return "" if given.is_floating_point() == own.is_floating_point() else f"{there} there, {here} here"


def _in_order(given: Tensor, rows: Sequence[int] | None) -> Tensor:
    return given if rows is None else given[list(rows)]


def _refuse_no_numbers(taken: Mapping[str, Tensor]) -> None:
    if broken := [name for name, tensor in taken.items() if not tensor.isfinite().all()]:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(
            f"{broken[0]}{more}: holds NaN or infinity; take a step before that, or leave it out by "
            "initial_weights.drop"
        )


def _refuse_idle(own: Iterable[str], given: Iterable[str], wanted: InitialWeightsConfig) -> None:
    """Raise ValueError for what drops or renames nothing: a slip in it would take what was not to be taken."""
    own, given = list(own), list(given)
    unmatched = [each for each in wanted.drop if not any(fnmatchcase(name, each) for name in own)]
    idle = [f"drop: {each} matches no tensor of this network" for each in unmatched]
    prefixes = [pair.split("=")[0] for pair in wanted.rename]
    unmatched = [each for each in prefixes if not any(name.startswith(each) for name in given)]
    idle += [f"rename: no tensor of the source begins with {each}" for each in unmatched]
    if idle:
        raise ValueError(
            f"initial_weights.{'; '.join(idle)}; this network has names such as {_first_of(own)}, the source "
            f"such as {_first_of(given)}"
        )


def _first_of(names: Sequence[str]) -> str:
    """Return one name of each part of a network."""
    return ", ".join({name.partition(".")[0]: name for name in reversed(names)}.values())


def other_frequencies(before: PerceiverConfig, after: PerceiverConfig) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the resolutions that Fourier features of one name have in both, where they differ, by the key that sets
    them.

    Frequencies go up to half the resolution, which is the size of the grid unless it is given: on another grid the same
    weights would read other frequencies, and no shape shows it.
    """
    old, new = _resolutions(before), _resolutions(after)
    # Of another number of axes the shapes differ too.
    both = [key for key in new if key in old and len(old[key]) == len(new[key])]
    return {key: (old[key], new[key]) for key in both if old[key] != new[key]}


def _resolutions(config: PerceiverConfig) -> dict[str, tuple[int, ...]]:
    if config.network:
        return {}  # the module of a plug-in makes its own positions
    inputs = {f"inputs.{name}": each.fourier_resolution for name, each in config.ordered_inputs.items()}
    outputs = {f"outputs.{name}": each.fourier_resolution for name, each in config.answers().items()}
    return {f"model.{name}.positions.max_resolution": found for name, found in (inputs | outputs).items() if found}


def table_grids(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the grid of each table of a network by its parameter's name; that of a set of rows is empty."""
    tables = ((name, module) for name, module in network.named_modules() if isinstance(module, Table))
    return {f"{name}.weight": module.grid for name, module in tables}


def _renamed(weights: Mapping[str, T], pairs: Sequence[str]) -> Iterator[tuple[str, T]]:
    """Yield what there is of each tensor by its name here: the longest prefix that is to be renamed is replaced.

    ValueError where two get one name.
    """
    rename = dict(pair.split("=") for pair in pairs)
    seen: dict[str, str] = {}
    for name, tensor in weights.items():
        # The longest, so that an exception can stand beside its rule.
        prefix = max((each for each in rename if name.startswith(each)), key=len, default=None)
        new = name if prefix is None else rename[prefix] + name[len(prefix) :]
        if new in seen:
            raise ValueError(f"initial_weights.rename makes {new} of both {seen[new]} and {name}; rename one elsewhere")
        seen[new] = name
        yield new, tensor


def _resized(
    given: Tensor, own: Tensor, grid: tuple[int, ...] | None, old_grid: tuple[int, ...] | None
) -> Tensor | None:
    """Return the rows of a table for another number of rows; None where nothing says how."""
    if grid is None or given.dim() != 2 or given.shape[1] != own.shape[1]:
        return None
    if not grid:
        # Latents are a set: the first ones are those of the source, and what is more was drawn for this network.
        return torch.cat([given[: len(own)].to(own.dtype), own[len(given) :]])
    old_grid = (len(given),) if old_grid is None and len(grid) == 1 else old_grid
    if not old_grid or len(old_grid) != len(grid) or len(grid) not in _MODES or prod(old_grid) != len(given):
        return None
    # Both ends of an axis stay its ends, as the places of a grid have them.
    cells = given.T.float().reshape(1, given.shape[1], *old_grid)
    wider = functional.interpolate(cells, size=grid, mode=_MODES[len(grid)], align_corners=True)
    return wider.flatten(2)[0].T.contiguous()
