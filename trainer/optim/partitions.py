"""Partitions: the parts of fp32 weights that this rank holds, with what is kept beside them, as flat views by name.

The one file that knows how DeepSpeed 0.19.8 lays its optimizers out (attributes, not imports); the contract tests in
tests/trainer/test_deepspeed_facts.py say what of that it relies on.

    parameters A, B, C      rank 0               rank 1
    ZeRO 0    Whole         A A A B B B C C      A A A B B B C C      the parameters themselves
    ZeRO 1, 2 FlatGroups    A A A B              B B C C              one flat tensor per group, cut in the middle
    ZeRO 3    EvenParameters  A A B B C          A - B - C            each parameter cut, its last part padded
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.optim.lamb import Segment
from trainer.optim.optimizers import MOMENTS

WEIGHT = "weight"
KINDS = (WEIGHT, *MOMENTS)
_CLIP_EPSILON = 1e-6  # torch's and DeepSpeed's
Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks. Collective."""
Beside = Callable[[Tensor], Mapping[str, Tensor]]
"""Returns by kind what is kept beside a tensor that is optimized, element for element."""


@dataclass(frozen=True)
class Piece:
    """A contiguous part of one flattened parameter; writing into its tensors changes the optimizer."""

    name: str
    """The name of the parameter in the network."""
    start: int
    """First element in the flattened parameter."""
    tensors: dict[str, Tensor]
    """A flat view for the weight and for each kind that is kept beside it."""

    @property
    def stop(self) -> int:
        """One past the last element."""
        return self.start + self.tensors[WEIGHT].numel()


class Partitions(Protocol):
    """The partition of the state over the ranks at one ZeRO stage."""

    def by_group(self) -> list[list[Tensor]]:
        """Return the tensors that the inner optimizer updates, the keys of its state, for each parameter group."""
        ...

    def masters(self) -> list[Tensor]:
        """Return these tensors of all groups."""
        ...

    def names_by_master(self) -> dict[Tensor, list[str]]:
        """Return the parameters of which each of these tensors holds a part, on this rank or another."""
        ...

    def pieces(self, beside: Beside) -> Iterator[Piece]:
        """Yield what this rank holds."""
        ...

    def segments(self) -> dict[Tensor, list[Segment]]:
        """Return which parameters, numbered alike on all ranks, lie where in the masters."""
        ...

    def refresh(self) -> None:
        """Bring the network's weights in line after the pieces were written. Collective."""
        ...

    def gradient_squares(self) -> list[Tensor]:
        """Return, between backward and step, this rank's part of each group's squared gradient norm, loss scale in."""
        ...


class Clippable(Partitions, Protocol):
    """Partitions whose gradients can be clipped between backward and step without the host waiting for the device."""

    def gradients(self) -> list[Tensor]:
        """Return the parts of the gradient that this rank applies; writing into them changes what is applied."""
        ...

    def gradient_norm(self, total: Total) -> Tensor:
        """Return the norm of the whole gradient, not finite where any part of it is not. Collective."""
        ...

    def clip_factor(self, norm: Tensor, most: float) -> Tensor:
        """Return what a gradient of this norm is multiplied by, so that its norm is `most` at most."""
        ...


@dataclass(frozen=True)
class Whole:
    """ZeRO 0: every rank holds everything; the optimizer is torch's own."""

    names: dict[Tensor, str]
    optimizer: Any
    rank: int

    def by_group(self) -> list[list[Tensor]]:
        """Return the parameters themselves."""
        return [list(group["params"]) for group in self.optimizer.param_groups]

    def masters(self) -> list[Tensor]:
        """Return those of all groups."""
        return list(chain.from_iterable(self.by_group()))

    def names_by_master(self) -> dict[Tensor, list[str]]:
        """Return the name of each parameter."""
        return {parameter: [self.names[parameter]] for parameter in self.masters()}

    def pieces(self, beside: Beside) -> Iterator[Piece]:
        """Yield every parameter whole."""
        for parameter in self.masters():
            # view, which fails where reshape would copy: what a load writes into a copy never reaches the parameter.
            views = {kind: tensor.view(-1) for kind, tensor in beside(parameter).items()}
            yield Piece(self.names[parameter], 0, {WEIGHT: parameter.data.view(-1), **views})

    def segments(self) -> dict[Tensor, list[Segment]]:
        """Return each parameter as its own segment."""
        numbers = {parameter: number for number, parameter in enumerate(self.names)}
        return {parameter: [Segment(numbers[parameter], 0, parameter.numel())] for parameter in self.masters()}

    def refresh(self) -> None:
        """Do nothing: the pieces are the weights."""

    def gradient_squares(self) -> list[Tensor]:
        """Return the squares on rank 0 and zeros elsewhere: the gradients are already the same on all ranks."""
        groups = self.optimizer.param_groups
        gradients = {
            index: [p.grad for p in group["params"] if p.grad is not None and self.rank == 0]
            for index, group in enumerate(groups)
        }
        return _squares(gradients, [group["params"][0] for group in groups])

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the parameters."""
        return [parameter.grad for parameter in self.masters() if parameter.grad is not None]

    def gradient_norm(self, total: Total) -> Tensor:  # noqa: ARG002 - as Clippable has it
        """Return the norm, as torch computes it; all ranks have the same gradients."""
        return torch.nn.utils.get_total_norm(self.gradients())

    def clip_factor(self, norm: Tensor, most: float) -> Tensor:
        """Return the factor, rounded as torch does."""
        return (most / (norm + _CLIP_EPSILON)).clamp(max=1.0)


@dataclass(frozen=True)
class FlatGroups:
    """ZeRO 1 and 2: each group is one flat tensor, cut evenly over the ranks wherever that falls in a parameter."""

    names: dict[Tensor, str]
    zero: Any

    def by_group(self) -> list[list[Tensor]]:
        """Return this rank's fp32 part of each group."""
        return [[part] for part in self.zero.single_partition_of_fp32_groups]

    def masters(self) -> list[Tensor]:
        """Return those of all groups."""
        return list(chain.from_iterable(self.by_group()))

    def names_by_master(self) -> dict[Tensor, list[str]]:
        """Return the names of each group."""
        # DeepSpeed's name in every precision: under autocast these are the network's fp32 parameters.
        groups = zip(self.masters(), self.zero.bit16_groups, strict=True)
        return {master: [self.names[parameter] for parameter in parameters] for master, parameters in groups}

    def pieces(self, beside: Beside) -> Iterator[Piece]:
        """Yield the part of each parameter that falls into this rank's cut."""
        for parameters, master in zip(self.zero.bit16_groups, self.masters(), strict=True):
            sources = {WEIGHT: master.data, **beside(master)}
            for parameter in parameters:
                mapping = parameter._hp_mapping
                # None where no element of the parameter lies in this rank's cut. Of its two addresses, hp is the place
                # in the cut, lp that in the parameter.
                if mapping is not None:
                    at = mapping.hp_fragment_address
                    views = {kind: source.narrow(0, at.start, at.numel) for kind, source in sources.items()}
                    yield Piece(self.names[parameter], mapping.lp_fragment_address.start, views)

    def segments(self) -> dict[Tensor, list[Segment]]:
        """Return the parts of parameters that lie in this rank's cuts."""
        # By the order in the network, which all ranks know; each rank holds parts of some parameters only.
        numbers = {parameter: number for number, parameter in enumerate(self.names)}
        found: dict[Tensor, list[Segment]] = {}
        for parameters, master in zip(self.zero.bit16_groups, self.masters(), strict=True):
            addresses = [(numbers[p], p._hp_mapping.hp_fragment_address) for p in parameters if p._hp_mapping]
            found[master] = [Segment(number, at.start, at.numel) for number, at in addresses]
        return found

    def refresh(self) -> None:
        """Copy this rank's fp32 parts into the network's weights and gather the others'. Collective."""
        self.zero.update_lp_params()

    def gradient_squares(self) -> list[Tensor]:
        """Return the squares of the parts that this rank reduced."""
        return _squares(self.zero.averaged_gradients, self.masters())

    def gradients(self) -> list[Tensor]:
        """Return the parts that this rank reduced, and the padding of its cuts."""
        return [part for index in range(len(self.masters())) for part in self.zero.averaged_gradients[index]]

    def gradient_norm(self, total: Total) -> Tensor:
        """Return the norm, as DeepSpeed computes it: in fp64 a part, then over the ranks and groups."""
        # All groups in one exchange: each exchange costs a round trip.
        squares = torch.stack([self._square(index) for index in range(len(self.masters()))])
        norm: Tensor = torch.linalg.vector_norm(total(squares).pow(0.5))
        return norm

    def clip_factor(self, norm: Tensor, most: float) -> Tensor:
        """Return the factor, rounded as DeepSpeed does."""
        return 1.0 / ((norm + _CLIP_EPSILON) / most).clamp(min=1.0)

    def _square(self, index: int) -> Tensor:
        # DeepSpeed leaves padding out of its norm, too.
        parts = [part for part in self.zero.averaged_gradients[index] if not getattr(part, "_zero_padding", False)]
        norms = torch._foreach_norm(parts, 2, dtype=torch.float64) if parts else [self.masters()[index].new_zeros(())]
        return torch.stack(norms).pow(2).sum().float()


@dataclass(frozen=True)
class EvenParameters:
    """ZeRO 3: each parameter is cut evenly over the ranks, the last part padded."""

    names: dict[Tensor, str]
    zero: Any
    rank: int

    def by_group(self) -> list[list[Tensor]]:
        """Return this rank's fp32 parts of each group, one for each of DeepSpeed's sub-groups."""
        parts: list[list[Tensor]] = [[] for _ in self.zero.optimizer.param_groups]
        for index, part in enumerate(self.masters()):
            parts[self.zero.sub_group_to_group_id[index]].append(part)
        return parts

    def masters(self) -> list[Tensor]:
        """Return those of all groups."""
        return list(self.zero.fp32_partitioned_groups_flat)

    def names_by_master(self) -> dict[Tensor, list[str]]:
        """Return the names of each sub-group."""
        groups = zip(self.masters(), self.zero.fp16_groups, strict=True)
        return {master: [self.names[parameter] for parameter in parameters] for master, parameters in groups}

    def pieces(self, beside: Beside) -> Iterator[Piece]:
        """Yield this rank's part of each parameter, without padding."""
        for parameters in self.zero.fp16_groups:
            for parameter in parameters:
                index, offset, padded = self.zero.grad_position[self.zero.get_param_id(parameter)]
                start = self.rank * padded
                length = min(padded, parameter.ds_numel - start)
                # Of a small parameter the last ranks hold nothing but padding.
                if length > 0:
                    master = self.zero.fp32_partitioned_groups_flat[index]
                    sources = {WEIGHT: master.data, **beside(master)}
                    views = {kind: source.narrow(0, offset, length) for kind, source in sources.items()}
                    yield Piece(self.names[parameter], start, views)

    def segments(self) -> dict[Tensor, list[Segment]]:
        """Fail: LAMB's norms over these cuts were never shown to be exact, and the configuration refuses them."""
        raise AssertionError("the configuration should have refused LAMB at ZeRO 3")

    def refresh(self) -> None:
        """Copy the fp32 parts into the partitioned weights, and gather those that stay gathered. Collective."""
        for index, master in enumerate(self.masters()):
            # Stage 3 has two memories: the fp32 parts that are optimized, and those that a forward pass gathers.
            self.zero.fp16_partitioned_groups_flat[index].data.copy_(master.data)
            self.zero._unflatten_partitioned_parameters(index)
        # Small parameters stay gathered on every rank: without this they would keep the values from before the load.
        if self.zero.persistent_parameters:
            first, every = self.zero.persistent_parameters[0], self.zero.persistent_parameters
            first.partition(every)
            first.all_gather(every)

    def gradient_squares(self) -> list[Tensor]:
        """Return the squares of the parts that this rank reduced."""
        squares = iter(_squares(self.zero.averaged_gradients, self.masters()))
        # A group's sub-groups are consecutive.
        return [torch.stack([next(squares) for _ in parts]).sum() for parts in self.by_group()]


def _squares(gradients: Mapping[int, list[Tensor] | None], masters: list[Tensor]) -> list[Tensor]:
    return [
        # From a tensor and not from 0: a group without any gradient must be a number on the device like all others.
        sum((part.float().square().sum() for part in gradients.get(index) or ()), start=master.new_zeros(()))
        for index, master in enumerate(masters)
    ]
