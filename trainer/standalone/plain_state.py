"""PlainState: a PyTorch module and optimizer, equal on all ranks, as tensors under parameter names.

Unlike a run's engine it keeps any optimizer of torch.optim: whatever its state has, tensors become files by the name of
their parameter, and numbers stand in the manifest.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed.world import World
from trainer.optim.json_state import packed, unpacked
from trainer.optim.ownership import ReadTensor
from trainer.optim.partitions import WEIGHT
from trainer.run_state import EngineState

_OPTIMIZER = "optimizer"
Place = tuple[str, str]
"""A tensor of an optimizer: what it is, such as exp_avg, and the name of its parameter."""


class PlainState:
    """What rank 0 writes and every rank reads. See trainer.checkpoint.state.Checkpointed."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer | None, world: World) -> None:
        """ValueError where a state cannot be kept."""
        # The module's own names: a checkpoint loads with and without the wrapper, which puts `module.` before each.
        self._module = module.module if isinstance(module, DistributedDataParallel) else module
        self._optimizer = optimizer
        self._world = world
        self._names = {parameter: name for name, parameter in self._module.named_parameters()}
        if cut := [name for parameter, name in self._names.items() if isinstance(parameter, DTensor)]:
            raise ValueError(
                f"{cut[0]}: is cut over the ranks (a DTensor, as FSDP makes them); a plain module is alike on all of "
                "them: give the store an engine of DeepSpeed's, or save by torch.distributed.checkpoint"
            )
        if others := [name for name, value in self._module.state_dict().items() if not _is_tensor(value)]:
            raise ValueError(f"{others[0]}: is no tensor; of a module's state a checkpoint keeps tensors")
        for group in optimizer.param_groups if optimizer else ():
            if any(parameter not in self._names for parameter in group["params"]):
                raise ValueError("optimizer: updates a parameter that is not one of the module's")

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors by kind and name on rank 0, copied; nothing on the others."""
        self._packed_optimizer()  # all ranks refuse what cannot be kept, or none
        if not self._world.is_first:
            return {}
        tensors = {WEIGHT: {name: _copy(tensor) for name, tensor in self._module.state_dict().items()}}
        for (kind, name), tensor in self._moments():
            tensors.setdefault(kind, {})[name] = _copy(tensor)
        return tensors

    def progress(self) -> EngineState:
        """Return the optimizer's numbers, and which tensors it had: it makes them at the first step of each."""
        return EngineState(0, 0.0, {}, details={_OPTIMIZER: self._packed_optimizer()} if self._optimizer else {})

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        """Return the shapes of the module's tensors."""
        return {WEIGHT: {name: tensor.shape for name, tensor in self._module.state_dict().items()}}

    def leaves_optimizer(self, progress: EngineState) -> bool:
        """Return whether a checkpoint holds an optimizer's state that is not asked for."""
        return self._optimizer is None and _OPTIMIZER in progress.details

    def restore(self, read: ReadTensor, progress: EngineState) -> None:
        """Take over a state; ValueError on all ranks, nothing changed, where it is another module's or optimizer's."""
        changes: list[Callable[[], None]] = []

        def find() -> None:
            changes.extend(self._weights(read))
            if self._optimizer is not None:
                changes.append(self._optimizer_change(read, progress, self._optimizer))

        # Everything is read and compared before anything is changed: a refusal leaves the module as it was.
        self._world.from_each(find)
        with torch.no_grad():
            for change in changes:
                change()

    def _weights(self, read: ReadTensor) -> Iterator[Callable[[], None]]:
        for name, tensor in self._module.state_dict().items():
            value = read(WEIGHT, name, 0, tensor.numel())
            if value.dtype != tensor.dtype:
                raise ValueError(f"{name}: is {value.dtype} in the checkpoint, {tensor.dtype} here; make the two agree")
            yield lambda tensor=tensor, value=value: tensor.copy_(value.view(tensor.shape))  # type: ignore[misc]

    def _optimizer_change(
        self, read: ReadTensor, progress: EngineState, optimizer: torch.optim.Optimizer
    ) -> Callable[[], None]:
        saved = progress.details.get(_OPTIMIZER)
        if saved is None:
            raise ValueError("optimizer: the checkpoint was saved without one; give the store none")
        here = self._packed_optimizer()
        for key in ("type", "params"):
            if saved[key] != here[key]:
                raise ValueError(f"optimizer: {_OTHER[key]} in the checkpoint ({saved[key]}) and here ({here[key]})")
        parameters = {name: parameter for parameter, name in self._names.items()}
        state: dict[Tensor, dict[str, Any]] = {}
        for name, numbers in saved["numbers"].items():
            state.setdefault(parameters[name], {}).update(unpacked(numbers))
        for kind, shapes in saved["tensors"].items():
            for name, (shape, device) in shapes.items():
                value = read(kind, name, 0, torch.Size(shape).numel()).view(shape)
                parameter = parameters[name]
                # torch keeps a step counter in host memory, but that of fused optimizers on the device.
                state.setdefault(parameter, {})[kind] = value.to("cpu" if device == "cpu" else parameter.device)

        def change() -> None:
            # First emptied: what the checkpoint does not have must not stay from the steps made since.
            optimizer.state.clear()
            optimizer.state.update(state)
            for group, options in zip(optimizer.param_groups, saved["options"], strict=True):
                group.update(unpacked(options))

        return change

    def _moments(self) -> Iterator[tuple[Place, Tensor]]:
        for parameter, state in self._optimizer.state.items() if self._optimizer else ():
            yield from (((kind, self._names[parameter]), value) for kind, value in state.items() if _is_tensor(value))

    def _packed_optimizer(self) -> dict[str, Any]:
        if self._optimizer is None:
            return {}
        tensors: dict[str, dict[str, Any]] = {}
        for (kind, name), tensor in self._moments():
            tensors.setdefault(kind, {})[name] = [list(tensor.shape), tensor.device.type]
        groups = self._optimizer.param_groups
        numbers = {
            self._names[parameter]: {key: value for key, value in state.items() if not _is_tensor(value)}
            for parameter, state in self._optimizer.state.items()
        }
        options = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        return {
            "type": type(self._optimizer).__name__,
            "params": [[self._names[parameter] for parameter in group["params"]] for group in groups],
            "options": packed(options, "optimizer.param_groups"),
            "numbers": packed(numbers, "optimizer.state"),
            "tensors": tensors,
        }


_OTHER = {"type": "is of another type", "params": "updates other parameters, or in other groups,"}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _copy(tensor: Tensor) -> Tensor:
    # clone: of a tensor in host memory .cpu() is the tensor itself, and the next step would change what is being
    # written in the background.
    return tensor.detach().cpu().clone()
