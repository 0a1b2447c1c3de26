"""ShardedState: weights and moments of a DeepSpeed engine as whole tensors under parameter names, to save and restore.

The engine may be that of a run or one of somebody else's making; see trainer/standalone/deepspeed_state.py.

    save     pieces of each rank --> the rank that writes the parameter --> host memory --> Store
    load     file --> the rank that reads the parameter --> pieces of all ranks --> refresh: the network's own copies
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.ema_config import EMA, EmaConfig
from trainer.engine.deepspeed_start import gathered
from trainer.optim.average import Average
from trainer.optim.kept_state import kept_by
from trainer.optim.ownership import Ownership, Saved
from trainer.optim.partitions import WEIGHT, EvenParameters, FlatGroups, Partitions, Piece, Whole
from trainer.run_state import EngineState

Untyped: TypeAlias = Any
"""Objects of DeepSpeed, which has no types."""
_KEPT = "optimizer_state"
"""The entry of a manifest's details on an optimizer that names its state itself."""
_LOSS_SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class ShardedState:
    """The state of one engine. Construction and every method: Collective."""

    def __init__(
        self,
        deepspeed: Untyped,
        inner: torch.optim.Optimizer,
        shapes: Mapping[str, torch.Size],
        world: World,
        ema: EmaConfig | None = None,
    ) -> None:
        """`inner` is the optimizer that DeepSpeed wraps, `shapes` those of the whole tensors of the module's state."""
        self._deepspeed = deepspeed
        self._inner = inner
        self._shapes = dict(shapes)
        self._world = world
        self._zero_stage: int = deepspeed.zero_optimization_stage()
        names = {parameter: name for name, parameter in deepspeed.module.named_parameters()}
        # Taken now: what is trained from a later step on asks for no gradient until then.
        self._trained = [name for parameter, name in names.items() if parameter.requires_grad]
        self.partitions = _partitions(deepspeed, names, self._zero_stage, world.rank)
        """Which rank holds what."""
        self._kept = kept_by(inner, self.partitions.names_by_master(), shapes, world, is_cut=self._zero_stage > 0)
        self.average = Average(ema, self.partitions.masters()) if ema and ema.decay else None
        """The moving average of the weights; None where none is kept."""
        self._ownership: Ownership | None = None

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Return by kind the whole tensors that this rank writes, copied to host memory.

        Buffers and frozen parameters are among the weights of rank 0. The next call overwrites what this one returned.
        """
        pieces = list(self.partitions.pieces(self._beside))
        tensors = self._owning(pieces).snapshot(pieces, self._kinds())
        whole = self._kept.whole()
        for kind, by_name in whole.items() if self._world.is_first else ():
            tensors.setdefault(kind, {}).update(by_name)
        with self._fixed() as fixed:
            if self._world.is_first:
                tensors[WEIGHT] |= {name: tensor.detach().cpu().clone() for name, tensor in fixed.items()}
        return tensors

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        """Return by kind the shapes of all tensors that a checkpoint must have, by name."""
        trained = {name: self._shapes[name] for name in self._trained}
        # Not the average: one that is missing begins anew. Nor what an optimizer makes when it first needs it.
        return {WEIGHT: self._shapes, **dict.fromkeys(self._kept.required, trained)}

    def details(self) -> dict[str, Any]:
        """Return what a manifest says of the optimizer's state beside its tensors; nothing of moments."""
        record = self._kept.record()
        return {_KEPT: record} if record else {}

    def applied_steps(self) -> float:
        """Return the steps that changed the weights of what is trained from the start."""
        # Adam's bias correction counts these, and not all steps: a skipped one moved no moment.
        return self._counts().get(0, 0.0)

    def late_steps(self) -> dict[str, float]:
        """Return these steps of what is trained from a later step on, by that step."""
        return {str(first): count for first, count in self._counts().items() if first}

    def loss_scale(self) -> dict[str, int | float]:
        """Return the fields of the loss scaler by name; empty where there is none."""
        scaler = getattr(self._deepspeed.optimizer, "loss_scaler", None)
        return {field: getattr(scaler, field) for field in _LOSS_SCALER_FIELDS if hasattr(scaler, field)}

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Give the network the average of its weights within the block, or leave it where there is none. Collective."""
        return self.average.in_place(self.partitions.refresh) if self.average else contextlib.nullcontext()

    def restore(self, read: Saved, progress: EngineState) -> None:
        """Take over a state, saved at any ZeRO stage, precision and world size; its tensors have our `shapes`.

        Each tensor is read by one rank, which deals it out. ValueError on all ranks where one cannot read its own.
        """
        self._kept.prepare(read, progress.details.get(_KEPT, {}))
        with torch.no_grad():
            pieces, kinds = list(self.partitions.pieces(self._beside)), self._kinds()
            owning = self._owning(pieces)
            if self.average and not self.average.resumes(progress.average):
                del kinds[EMA]
            fixed_names = self._shapes.keys() - set(self._trained) if self._world.is_first else set()
            unmoved: dict[str, Tensor] = {}

            whole: list[Callable[[], None]] = []

            def read_own() -> None:
                owning.read(pieces, read, kinds)
                whole.append(self._kept.read_whole(read))
                unmoved.update((name, read(WEIGHT, name, 0, self._shapes[name].numel())) for name in fixed_names)

            # All have read before any tensor travels: a file that one rank cannot read ends all with a sentence, in
            # place of leaving the others in an exchange.
            self._world.from_each(read_own)
            owning.deal(pieces, kinds)
            for deal in whole:
                deal()
            with self._fixed() as fixed:
                for name, tensor in fixed.items():
                    if self._world.is_first:
                        tensor.copy_(unmoved[name].view(tensor.shape))
                    self._world.spread(tensor, 0)
            self.partitions.refresh()
        self._restore_numbers(progress)

    def _restore_numbers(self, progress: EngineState) -> None:
        for first, parts in self._by_first_step():
            for part in parts:
                self._inner.state[part]["step"].fill_(progress.applied_since(first))
        if self.average:
            self.average.restart(progress.average)
        scaler = getattr(self._deepspeed.optimizer, "loss_scaler", None)
        for field, value in progress.loss_scale.items():
            if hasattr(scaler, field):
                setattr(scaler, field, value)

    def _counts(self) -> dict[int, float]:
        """Return the applied steps by the step from which on they were possible; nothing where they are not counted."""
        return {first: float(self._inner.state[parts[0]]["step"]) for first, parts in self._by_first_step() if parts}

    def _by_first_step(self) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield what the optimizer updates of each parameter group, with the first step that trains it.

        Nothing of an optimizer whose counts are part of the state that it names.
        """
        if not self._kept.required:
            return iter(())
        # A group of somebody else's making is trained from the start.
        firsts = [group.get("first_step", 0) for group in self._inner.param_groups]
        return zip(firsts, self.partitions.by_group(), strict=True)

    def _beside(self, master: Tensor) -> dict[str, Tensor]:
        average = {EMA: self.average.of(master)} if self.average else {}
        return self._kept.beside(master) | average

    def _kinds(self) -> dict[str, torch.dtype]:
        """Return the kinds that are cut like the weights, and their types."""
        return {WEIGHT: torch.float32, **self._kept.kinds(), **({EMA: torch.float32} if self.average else {})}

    def _owning(self, pieces: list[Piece]) -> Ownership:
        if self._ownership is None:
            self._ownership = Ownership(pieces, self._shapes, self._world)
        return self._ownership

    @contextlib.contextmanager
    def _fixed(self) -> Iterator[dict[str, Tensor]]:
        """Give what no optimizer moves, to read or to overwrite: saved buffers, and frozen parameters."""
        module = self._deepspeed.module
        # named_buffers() also has those that are not persistent, which the network computes for itself.
        saved = module.state_dict().keys()
        buffers = {name: buffer for name, buffer in module.named_buffers() if name in saved}
        trained = set(self._trained)
        frozen = {name: parameter for name, parameter in module.named_parameters() if name not in trained}
        with gathered(list(frozen.values()), self._zero_stage):
            yield {**buffers, **{name: parameter.data for name, parameter in frozen.items()}}


def _partitions(deepspeed: Untyped, names: dict[Tensor, str], zero_stage: int, rank: int) -> Partitions:
    match zero_stage:
        case 0:
            return Whole(names, deepspeed.optimizer, rank)
        case 1 | 2:
            return FlatGroups(names, deepspeed.optimizer)
        case _:
            return EvenParameters(names, deepspeed.optimizer, rank)
