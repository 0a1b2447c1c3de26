"""Checkpoints around a loop of one's own: bit-equal resumes, and refusals that change nothing."""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import rewrite

from trainer.checkpoint.names import MANIFEST, committed, step_of
from trainer.optim.json_state import packed, unpacked
from trainer.standalone.checkpoint_store import CheckpointStore

Make = Callable[[nn.Module], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1),
    "fused": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, fused=True),
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "groups": lambda net: torch.optim.RMSprop(
        [{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(net.parameters())]
    ),
    "amsgrad": lambda net: torch.optim.Adam(net.parameters(), amsgrad=True),
    "adagrad": lambda net: torch.optim.Adagrad(net.parameters()),
    "rprop": lambda net: torch.optim.Rprop(net.parameters()),
}
SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    "milestones": lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5]),
    "plateau": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}


class Loop:
    """A module, an optimizer and a scheduler, trained on what its step says."""

    def __init__(self, make: Make = OPTIMIZERS["adamw"], schedule: str = "cosine", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.GELU(), nn.Linear(7, 3))
        self.module[3].bias.requires_grad_(requires_grad=False)
        self.optimizer = make(self.module)
        self.scheduler = SCHEDULERS[schedule](self.optimizer)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            values = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            loss = self.module(values).square().mean()
            loss.backward()
            self.optimizer.step()
            takes = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            self.scheduler.step(*([loss.item()] if takes else []))

    def store(self, folder: Path, **options: Any) -> CheckpointStore:  # noqa: ANN401
        return CheckpointStore(folder, self.module, self.optimizer, also={"scheduler": self.scheduler}, **options)

    def tensors(self) -> list[Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.module.state_dict().values(), *(moment for moment in moments if isinstance(moment, Tensor))]


def alike(one: Loop, other: Loop) -> bool:
    pairs = list(zip(one.tensors(), other.tensors(), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_resumes_to_the_last_bit(tmp_path: Path, name: str) -> None:
    whole, first, second = (Loop(OPTIMIZERS[name], seed=seed) for seed in (0, 0, 1))
    whole.steps(0, 9)
    with first.store(tmp_path) as store:
        assert store.load() is None
        first.steps(0, 4)
        store.save(4)
    with second.store(tmp_path) as store:
        restored = store.load()
    assert restored is not None
    assert (restored.step, restored.damaged, restored.unused) == (4, (), ())
    second.steps(4, 9)
    assert alike(whole, second)


class Averaging(Loop):
    """The same with a moving average of the weights, in one module with them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.average = AveragedModel(self.module, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            super().steps(step, step + 1)
            self.average.update_parameters(self.module)

    def store(self, folder: Path, **options: Any) -> CheckpointStore:  # noqa: ANN401
        both = nn.ModuleDict({"network": self.module, "average": self.average})
        return CheckpointStore(folder, both, self.optimizer, also={"scheduler": self.scheduler}, **options)

    def tensors(self) -> list[Tensor]:
        return [*super().tensors(), *self.average.state_dict().values()]


def test_a_moving_average_beside_the_module_resumes_with_it_to_the_last_bit(tmp_path: Path) -> None:
    whole, first, second = (Averaging(seed) for seed in (0, 0, 1))
    whole.steps(0, 9)
    first.steps(0, 4)
    with first.store(tmp_path) as store:
        store.save(4)
    before = [tensor.clone() for tensor in first.average.parameters()]
    assert not any(torch.equal(*pair) for pair in zip(before[:2], first.module.parameters(), strict=False))
    with second.store(tmp_path) as store:
        assert store.load() is not None
    assert all(torch.equal(*pair) for pair in zip(before, second.average.parameters(), strict=True))
    assert second.average.n_averaged == 4
    second.steps(4, 9)
    assert alike(whole, second)


class Taught(nn.Linear):
    """A module with a method that engines of DeepSpeed's have too."""

    def backward(self) -> None:
        """Do nothing."""


def test_a_module_with_a_backward_of_its_own_is_no_engine(tmp_path: Path) -> None:
    module = Taught(2, 1)
    with CheckpointStore(tmp_path, module, torch.optim.AdamW(module.parameters())) as store:
        store.save(1)
    assert [path.name for path in committed(tmp_path)] == ["step_00000001"]


@pytest.mark.parametrize("schedule", SCHEDULERS)
def test_a_scheduler_comes_back_as_it_was(tmp_path: Path, schedule: str) -> None:
    whole, first, second = (Loop(schedule=schedule) for _ in range(3))
    whole.steps(0, 9)
    first.steps(0, 3)
    with first.store(tmp_path) as store:
        store.save(3)
    with second.store(tmp_path) as store:
        store.load()
    second.steps(3, 9)
    assert alike(whole, second)
    assert whole.optimizer.param_groups[0]["lr"] == second.optimizer.param_groups[0]["lr"]


def test_a_save_before_the_first_step_is_one_too(tmp_path: Path) -> None:
    first, second = Loop(seed=0), Loop(seed=1)
    with first.store(tmp_path) as store:
        store.save(0)
    with second.store(tmp_path) as store:
        second.steps(0, 2)
        assert store.load() is not None
    assert alike(first, second)


def test_what_trains_on_while_a_save_is_written_does_not_get_into_it(tmp_path: Path) -> None:
    first, second, expected = Loop(), Loop(seed=1), Loop()
    with first.store(tmp_path) as store:
        first.steps(0, 2)
        store.save(2)
        first.steps(2, 6)
    expected.steps(0, 2)
    with second.store(tmp_path) as store:
        store.load()
    assert alike(expected, second)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    loop = Loop()
    with loop.store(tmp_path, keep_last=2) as store:
        for step in (1, 2, 3):
            loop.steps(step - 1, step)
            store.save(step)
    assert [path.name for path in committed(tmp_path)] == ["step_00000002", "step_00000003"]
    damaged = next((tmp_path / "step_00000003").glob("weight-*"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with loop.store(tmp_path) as store:
        restored = store.load()
    assert restored is not None
    assert restored.step == 2
    assert len(restored.damaged) == 1
    assert "does not match its hash" in restored.damaged[0]


def test_as_many_checkpoints_are_kept_as_are_asked_for(tmp_path: Path) -> None:
    loop = Loop()
    for folder, options, steps in (
        ("usual", {}, [3, 4, 5]),
        ("one", {"keep_last": 1}, [5]),
        ("some", {"keep_last": 1, "keep_every_steps": 2}, [0, 2, 4, 5]),
    ):
        with loop.store(tmp_path / folder, **options) as store:
            for step in range(6):
                store.save(step)
        assert [step_of(path) for path in committed(tmp_path / folder)] == steps


def test_half_a_save_is_none(tmp_path: Path) -> None:
    loop = Loop()
    with loop.store(tmp_path) as store:
        store.save(1)
    (tmp_path / "step_00000001" / MANIFEST).unlink()
    with loop.store(tmp_path) as store, pytest.raises(ValueError, match="no checkpoint is whole"):
        store.load()


def test_the_module_alone_can_be_loaded_and_what_is_left_is_named(tmp_path: Path) -> None:
    first, second = Loop(), Loop(seed=1)
    first.steps(0, 2)
    with first.store(tmp_path) as store:
        store.save(2)
    with CheckpointStore(tmp_path, second.module) as store:
        restored = store.load()
    assert restored is not None
    assert restored.unused == ("optimizer", "scheduler")
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(second.module.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda _, folder: CheckpointStore(folder, nn.Linear(5, 7)), "was written by a run of another network"),
        (
            lambda loop, folder: CheckpointStore(folder, loop.module.to(torch.float64)),
            r"0\.weight: is torch\.float32 in the checkpoint, torch\.float64 here",
        ),
        (
            lambda loop, folder: CheckpointStore(folder, loop.module, OPTIMIZERS["sgd"](loop.module)),
            r"optimizer: is of another type in the checkpoint \(AdamW\) and here \(SGD\)",
        ),
        (
            lambda loop, folder: CheckpointStore(folder, loop.module, torch.optim.AdamW([loop.module[0].weight])),
            "optimizer: updates other parameters, or in other groups, in the checkpoint",
        ),
        (
            lambda loop, folder: CheckpointStore(folder, loop.module, also={"loader": loop.scheduler}),
            "also: the checkpoint has no 'loader', only 'scheduler'",
        ),
    ],
)
def test_what_another_loop_saved_is_refused_and_changes_nothing(
    tmp_path: Path, change: Callable[[Loop, Path], CheckpointStore], sentence: str
) -> None:
    loop, other = Loop(), Loop(seed=1)
    loop.steps(0, 2)
    with loop.store(tmp_path) as store:
        store.save(2)
    with change(other, tmp_path) as store:
        before = [tensor.clone() for tensor in other.module.state_dict().values()]
        with pytest.raises(ValueError, match=sentence):
            store.load()
    assert all(map(torch.equal, before, other.module.state_dict().values()))


def test_an_optimizer_of_which_the_checkpoint_knows_nothing_is_refused(tmp_path: Path) -> None:
    loop = Loop()
    with CheckpointStore(tmp_path, loop.module) as store:
        store.save(1)
    with (
        CheckpointStore(tmp_path, loop.module, loop.optimizer) as store,
        pytest.raises(ValueError, match="without one"),
    ):
        store.load()


def test_what_cannot_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    loop = Loop()
    with pytest.raises(ValueError, match="updates a parameter that is not one of the module's"):
        CheckpointStore(tmp_path, nn.Linear(2, 2), loop.optimizer)
    # One of its own does not make up for it.
    half = torch.optim.AdamW([loop.module[0].weight, nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match="updates a parameter that is not one of the module's"):
        CheckpointStore(tmp_path, loop.module, half)
    for wrong in ({"keep_last": 0}, {"keep_every_steps": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} = {next(iter(wrong.values()))}"):
            CheckpointStore(tmp_path, loop.module, **wrong)
    with loop.store(tmp_path) as store, pytest.raises(ValueError, match="step = -1: expected 0 or more"):
        store.save(-1)
    nested = torch.optim.LBFGS(loop.module.parameters())
    nested.state[next(loop.module.parameters())] = {"old_dirs": [torch.ones(2)]}
    with (
        CheckpointStore(tmp_path, loop.module, nested) as store,
        pytest.raises(ValueError, match=r"optimizer\.state\['0\.weight'\]\['old_dirs'\]\[0\]: is of type Tensor"),
    ):
        store.save(1)
    assert committed(tmp_path) == []


class Counting(nn.Linear):
    """A module with a state of its own that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"count": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Do nothing."""


def test_a_state_that_is_no_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^0\._extra_state: is no tensor"):
        CheckpointStore(tmp_path, nn.Sequential(Counting(2, 2)))


class Picky:
    """Refuses every state."""

    def state_dict(self) -> dict[str, Any]:
        return {"size": 3}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise ValueError(f"has another size than {state['size']}")


def test_what_another_object_refuses_is_told_with_its_name(tmp_path: Path) -> None:
    loop = Loop()
    with CheckpointStore(tmp_path, loop.module, also={"loader": Picky()}) as store:
        store.save(1)
        with pytest.raises(ValueError, match=r"also\['loader'\]: has another size than 3"):
            store.load()


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    store = loop.store(tmp_path)
    store.save(1)
    store.wait()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.store.write", full)
    store.save(2)
    with pytest.raises(OSError, match=r"step 2 was not saved: .*No space left on device"):
        store.close()
    assert [path.name for path in committed(tmp_path)] == ["step_00000001"]


def test_a_manifest_that_was_changed_by_hand_is_no_checkpoint(tmp_path: Path) -> None:
    loop = Loop()
    with loop.store(tmp_path) as store:
        store.save(1)
    rewrite(tmp_path / "step_00000001", "version", 9)
    with loop.store(tmp_path) as store, pytest.raises(ValueError, match="version 9, this release reads 1"):
        store.load()


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 0.5, "a", [1, [2]], (1, (2,)), {1: "a", "b": (2,)}, {"$tuple": 3}, {(1, 2): {}}, float("inf")],
)
def test_a_state_comes_back_from_json_as_it_was(value: object) -> None:

    back = unpacked(json.loads(json.dumps(packed(value, "x"))))
    assert back == value
    assert type(back) is type(value)
