"""KeptState: what any optimizer keeps, in the form in which a checkpoint holds it.

    tensors of the shape of what is updated   momenta        cut over the ranks like the weights
    tensors of any other shape                row sums, d    whole, under the name of their parameter
    numbers                                   counts         in the manifest, as the changed options of the groups

At ZeRO 1 to 3 one tensor holds parts of many parameters: what is not cut must be one number, alike on all ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from data_shards.files.quoting import counted
from trainer.distributed.world import World
from trainer.ema_config import EMA
from trainer.optim.json_state import packed, unpacked
from trainer.optim.optimizers import MOMENTS, keeps_moments
from trainer.optim.ownership import Kinds, Saved
from trainer.optim.partitions import WEIGHT

State = dict[str, Any]


class KeptMoments:
    """The state of AdamW and LAMB: two moments, there before the first step, and a count of steps, kept by others."""

    required = MOMENTS
    """The kinds that every checkpoint has."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self._inner = inner

    def beside(self, master: Tensor) -> dict[str, Tensor]:
        """Return by kind the tensors that are cut like the weights."""
        return {moment: self._inner.state[master][moment] for moment in MOMENTS}

    def kinds(self) -> Kinds:
        """Return the kinds that are cut like the weights, and their types."""
        return dict.fromkeys(MOMENTS, torch.float32)

    def whole(self) -> dict[str, dict[str, Tensor]]:
        """Return nothing: all is cut."""
        return {}

    def record(self) -> dict[str, Any]:
        """Return nothing: the tensors are all."""
        return {}

    def prepare(self, _: Saved, record: Mapping[str, Any]) -> None:
        """Raise ValueError where a checkpoint is of another optimizer."""
        if record:
            raise ValueError(f"optimizer: {record['type']} wrote the checkpoint; take the one that wrote it")

    def read_whole(self, _: Saved) -> Callable[[], None]:
        """Do nothing."""
        return lambda: None


class KeptState:
    """The state of an optimizer that makes its tensors when it first needs them, and names them itself."""

    required: tuple[str, ...] = ()
    """The kinds that every checkpoint has."""

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        names: Mapping[Tensor, Sequence[str]],
        shapes: Mapping[str, torch.Size],
        world: World,
        *,
        is_cut: bool,
    ) -> None:
        """`names` are the parameters in each tensor that is updated. To be made before the first step."""
        self._inner = inner
        self._names = names
        self._shapes = shapes
        self._world = world
        self._is_cut = is_cut
        # What a configuration says of the groups is that of this start; a checkpoint adds what the optimizer changed.
        self._options = [_options(group) for group in inner.param_groups]

    def beside(self, master: Tensor) -> dict[str, Tensor]:
        """Return by kind the tensors that are cut like the weights."""
        state = self._inner.state.get(master, {})
        return {kind: each for kind, each in state.items() if _is_tensor(each) and each.shape == master.shape}

    def kinds(self) -> Kinds:
        """Return the kinds that are cut like the weights, and their types."""
        found: dict[str, torch.dtype] = {}
        beside = [self.beside(master) for master in self._names]
        for state in beside:
            found |= {kind: tensor.dtype for kind, tensor in state.items()}
        # All ranks walk the same kinds in one order: of one that some parameters lack, the exchange would wait for a
        # part.
        if self._is_cut and any(state.keys() != found.keys() for state in beside):
            raise ValueError(self._refusal("keeps other tensors for some parameters than for others"))
        for kind in found:
            self._check_name(kind)
        # By name: after a load each rank made them in the order of a set, which is another one in every process.
        return dict(sorted(found.items()))

    def whole(self) -> dict[str, dict[str, Tensor]]:
        """Return by kind and name the tensors that are not cut, in host memory. Collective."""
        found: dict[str, dict[str, Tensor]] = {}
        for master, names in self._names.items():
            cut = self.beside(master)
            for kind, each in self._inner.state.get(master, {}).items():
                if _is_tensor(each) and kind not in cut:
                    self._check_name(kind)
                    found.setdefault(kind, {}).update(dict.fromkeys(names, each.detach().cpu().clone()))
        if self._is_cut:
            self._check_alike(found)
        return found

    def record(self) -> dict[str, Any]:
        """Return what a manifest says of the state beside its tensors."""
        numbers: dict[str, dict[str, Any]] = {}
        on_host: set[str] = set()
        if any(each not in self._names for each in self._inner.state):
            raise ValueError(self._refusal("keeps state of something that is no parameter", remedy=""))
        for master, names in self._names.items():
            for kind, each in self._inner.state.get(master, {}).items():
                if not _is_tensor(each):
                    numbers.setdefault(kind, {}).update(dict.fromkeys(names, packed(each, f"optimizer.state {kind}")))
                # A step counter lies on the host, that of a fused optimizer on the device: a load puts each where its
                # optimizer looks.
                elif each.device.type == "cpu":
                    on_host.add(kind)
        groups = zip(self._options, map(_options, self._inner.param_groups), strict=True)
        changed = [{key: value for key, value in now.items() if before.get(key) != value} for before, now in groups]
        options = [{key: packed(each, f"optimizer.param_groups {key}") for key, each in of.items()} for of in changed]
        return {"type": type(self._inner).__name__, "numbers": numbers, "on_host": sorted(on_host), "options": options}

    def prepare(self, saved: Saved, record: Mapping[str, Any]) -> None:
        """Make the tensors that a checkpoint has, to be filled; ValueError where it is of another optimizer."""
        here = type(self._inner).__name__
        there = record.get("type", "another")
        if there != here:
            raise ValueError(f"optimizer: {there} wrote the checkpoint, {here} is here; take the one that wrote it")
        if len(record["options"]) != len(self._options):
            raise ValueError(
                f"optimizer: the checkpoint has {counted(len(record['options']), 'parameter group')}, "
                f"{len(self._options)} are here; take those that wrote it"
            )
        like = {kind: saved.like(kind) for kind in saved.kinds() - {WEIGHT, EMA}}
        states = {master: self._state(master, names, like, record) for master, names in self._names.items()}
        self._inner.state.clear()
        # Of what has no state there is no entry: optimizers ask for that to make one.
        self._inner.state.update({master: state for master, state in states.items() if state})
        for group, before, changed in zip(self._inner.param_groups, self._options, record["options"], strict=True):
            group.update(before)
            group.update({key: unpacked(value) for key, value in changed.items()})

    def read_whole(self, saved: Saved) -> Callable[[], None]:
        """Read on rank 0 what is not cut; what is returned deals it out. The latter: Collective."""
        read: dict[tuple[str, str], Tensor] = {}
        if self._world.is_first:
            like = {kind: saved.like(kind) for kind in saved.kinds()}
            for kind, name in self._places():
                there = like[kind][name]
                read[kind, name] = saved(kind, name, 0, there.numel()).view(there.shape)

        def deal() -> None:
            values = self._world.broadcast(read)
            for master, names in self._names.items():
                for kind, each in self._uncut(master).items():
                    parts = [values[kind, name] for name in names]
                    if any(not torch.equal(part, parts[0]) for part in parts):
                        raise ValueError(self._refusal(f"has its own {kind} for each parameter in this checkpoint"))
                    each.copy_(parts[0])

        return deal

    def _state(
        self,
        master: Tensor,
        names: Sequence[str],
        like: Mapping[str, Mapping[str, Tensor]],
        record: Mapping[str, Any],
    ) -> State:
        """Return memory for what a checkpoint has of these parameters."""
        state: State = {}
        for kind, by_name in like.items():
            there = [by_name[name] for name in names if name in by_name]
            if not there:
                continue
            is_cut = all(each.shape == self._shapes[name] for each, name in zip(there, names, strict=False))
            if len(there) != len(names) or (self._is_cut and not is_cut and there[0].numel() != 1):
                raise ValueError(self._refusal(f"has {kind} of whole parameters in this checkpoint"))
            device = "cpu" if kind in record["on_host"] else master.device
            shape = master.shape if is_cut else there[0].shape
            old = self._inner.state.get(master, {}).get(kind)
            new = torch.zeros(shape, dtype=there[0].dtype, device=device)
            # DeepSpeed keeps views of the tensors that it saw first: others would take their memory a second time.
            is_like = _is_tensor(old) and (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device)
            state[kind] = old if is_like else new
        for kind, numbers in record["numbers"].items():
            values = [unpacked(numbers[name]) for name in names if name in numbers]
            if any(value != values[0] for value in values):
                raise ValueError(self._refusal(f"has its own {kind} for each parameter in this checkpoint"))
            state |= {kind: values[0]} if values else {}
        return state

    def _uncut(self, master: Tensor) -> dict[str, Tensor]:
        cut = self.beside(master)
        state = self._inner.state.get(master, {})
        return {kind: each for kind, each in state.items() if _is_tensor(each) and kind not in cut}

    def _places(self) -> list[tuple[str, str]]:
        return [(kind, name) for master, names in self._names.items() for kind in self._uncut(master) for name in names]

    def _check_alike(self, found: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Raise ValueError on all ranks where what cannot be cut is not the same number on all of them. Collective."""
        if not self._world.agree(bool(found)):
            return
        values = {kind: {name: each.tolist() for name, each in by_name.items()} for kind, by_name in found.items()}
        is_number = all(each.numel() == 1 for by_name in found.values() for each in by_name.values())
        if any(other != (values, True) for other in self._world.gather((values, is_number))):
            raise ValueError(self._refusal(f"keeps {', '.join(found)}, which is not one number for all parts"))

    def _check_name(self, kind: object) -> None:
        # It becomes the beginning of a file's name, beside those of the weights and their average.
        if not isinstance(kind, str) or not kind.isidentifier() or not kind.isascii() or kind in (WEIGHT, EMA):
            raise ValueError(f"optimizer: names its state {kind!r}; a checkpoint takes names such as momentum_buffer")

    def _refusal(self, why: str, remedy: str = ", which ZeRO 1 to 3 cannot cut; take train.zero_stage=0") -> str:
        return f"optimizer: {type(self._inner).__name__} {why}{remedy}"


def kept_by(
    inner: torch.optim.Optimizer,
    names: Mapping[Tensor, Sequence[str]],
    shapes: Mapping[str, torch.Size],
    world: World,
    *,
    is_cut: bool,
) -> KeptMoments | KeptState:
    """Return what an optimizer keeps; see KeptState."""
    return KeptMoments(inner) if keeps_moments(inner) else KeptState(inner, names, shapes, world, is_cut=is_cut)


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    # The rate is that of the schedule, in every step anew.
    return {key: value for key, value in group.items() if key not in ("params", "lr")}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
