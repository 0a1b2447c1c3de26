"""Ownership: the rank that writes and reads each parameter of a checkpoint, and the host memory for it.

    whole on its owner       ZeRO 0          the owner writes its own; after a load it is broadcast to the other copies
    parts on several ranks   ZeRO 1, 2, 3    the parts travel to the owner (Exchange), and after a load back

A parameter is written by one rank, so that the files of a checkpoint have whole tensors under names, whatever the stage
and the world size. Any number of ranks can read them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from trainer.distributed.exchange import ROUND_ELEMENTS, Exchange, Extent
from trainer.distributed.world import World
from trainer.optim.partitions import KINDS, Piece

Kinds = Mapping[str, torch.dtype]
"""The kinds of tensors of a checkpoint that are cut like the weights, and their types."""
_FP32: Kinds = MappingProxyType(dict.fromkeys(KINDS, torch.float32))
ReadTensor = Callable[[str, str, int, int], Tensor]
"""(kind, name, start, stop) -> those elements of the flattened tensor of a checkpoint; ValueError if it cannot."""


class Saved(Protocol):
    """The tensors of a checkpoint: a ReadTensor that also says which there are."""

    def __call__(self, kind: str, name: str, start: int, stop: int, /) -> Tensor:
        """Return these elements of a flattened tensor; ValueError if they cannot be read."""
        ...

    def kinds(self) -> set[str]:
        """Return the kinds of which there are tensors."""
        ...

    def like(self, kind: str) -> Mapping[str, Tensor]:
        """Return by name tensors of the shapes and types that a kind has, without their values."""
        ...


def owners(held: list[list[Extent]]) -> dict[str, int]:
    """Return the writing rank of each parameter: of those who hold most of it, who writes least so far.

    At ZeRO 3 all hold as much but for some padding, hence the tenth.
    """
    loads = [0] * len(held)
    lengths: dict[str, dict[int, int]] = {}
    for rank, extents in enumerate(held):
        for extent in extents:
            lengths.setdefault(extent.name, {})[rank] = extent.length
    owner: dict[str, int] = {}
    for name, by_rank in lengths.items():
        most = max(by_rank.values())
        holders = [rank for rank, length in by_rank.items() if length > 0.9 * most]
        # Of equals the first, so that all ranks find the same one.
        owner[name] = min(holders, key=lambda rank: loads[rank])
        # What it writes: the parts that the others hold, too.
        loads[owner[name]] += sum(by_rank.values())
    return owner


class Ownership:
    """The plan of a run's saves and loads, and the host memory that they are copied through. Construction: Collective.

    Every tensor of the optimizer is written by one rank and read by one rank, whatever the ZeRO stage.
    """

    def __init__(
        self,
        pieces: list[Piece],
        shapes: Mapping[str, torch.Size],
        world: World,
        *,
        round_elements: int = ROUND_ELEMENTS,
    ) -> None:
        self._world = world
        self._shapes = shapes
        held = world.gather([_extent(piece) for piece in pieces])
        # All ranks compute one plan from the same lists, with no further exchange.
        self._owners = owners(held)
        whole = {
            (rank, extent.name)
            for rank, extents in enumerate(held)
            for extent in extents
            if extent.length == shapes[extent.name].numel()
        }
        self._whole = {name for name, owner in self._owners.items() if (owner, name) in whole}
        parted = {name: owner for name, owner in self._owners.items() if name not in self._whole}
        self._exchange = Exchange(held, parted, world, round_elements=round_elements)
        self._copied = {name for rank, name in whole if rank != self._owners[name]}
        # Kept from save to save: fresh pages cost more than the copy itself.
        self._host: dict[tuple[str, str], Tensor] = {}

    def snapshot(self, pieces: list[Piece], kinds: Kinds = _FP32) -> dict[str, dict[str, Tensor]]:
        """Return by kind the whole tensors that this rank writes, in host memory. Collective.

        A parameter that is whole on its owner may lack a kind. The tensors are overwritten by the next call.
        """
        here = {piece.name: piece for piece in pieces}
        found: dict[str, dict[str, Tensor]] = {}
        for kind, dtype in kinds.items():
            names = [piece.name for piece in self._owned(pieces) if kind in piece.tensors]
            for name in names:
                piece = here[name]
                self._kept(kind, name, dtype)[piece.start : piece.stop].copy_(piece.tensors[kind])
            self._exchange.to_owners(_held(here, kind), self._part_of(kind, dtype), dtype)
            found[kind] = {name: self._kept(kind, name, dtype).view(self._shapes[name]) for name in names}
        return found

    def read(self, pieces: list[Piece], read: ReadTensor, kinds: Kinds = _FP32) -> None:
        """Read what this rank owns: into its pieces, and where others hold a part of it into the host's memory too."""
        for kind, dtype in kinds.items():
            for piece in self._owned(pieces):
                if kind not in piece.tensors:
                    continue
                if piece.name in self._whole:
                    piece.tensors[kind].copy_(read(kind, piece.name, piece.start, piece.stop))
                else:
                    kept = self._kept(kind, piece.name, dtype)
                    kept.copy_(read(kind, piece.name, 0, kept.numel()))
                    piece.tensors[kind].copy_(kept[piece.start : piece.stop])

    def deal(self, pieces: list[Piece], kinds: Kinds = _FP32) -> None:
        """Bring what each rank has read to all that hold a piece of it. Collective."""
        here = {piece.name: piece for piece in pieces}
        for kind, dtype in kinds.items():
            self._exchange.to_holders(self._part_of(kind, dtype), _held(here, kind), dtype)
            for name, owner in self._owners.items():
                # At ZeRO 0 every rank holds a whole copy; elsewhere the parts are there by now.
                if name in self._copied and kind in here[name].tensors:
                    self._world.spread(here[name].tensors[kind], owner)

    def _owned(self, pieces: list[Piece]) -> list[Piece]:
        return [piece for piece in pieces if self._owners[piece.name] == self._world.rank]

    def _part_of(self, kind: str, dtype: torch.dtype) -> Callable[[Extent], Tensor]:
        return lambda extent: self._kept(kind, extent.name, dtype)[extent.start : extent.stop]

    def _kept(self, kind: str, name: str, dtype: torch.dtype) -> Tensor:
        """Return the host's memory for a tensor of this rank, flat."""
        key = (kind, name)
        if key not in self._host or self._host[key].dtype != dtype:
            # Page-locked: into other memory a copy from the device makes the host wait.
            pinned = self._world.device.type == "cuda"
            self._host[key] = torch.empty(self._shapes[name].numel(), dtype=dtype, pin_memory=pinned)
        return self._host[key]


def _extent(piece: Piece) -> Extent:
    return Extent(piece.name, piece.start, piece.stop)


def _held(pieces: Mapping[str, Piece], kind: str) -> Callable[[Extent], Tensor]:
    return lambda extent: pieces[extent.name].tensors[kind]
