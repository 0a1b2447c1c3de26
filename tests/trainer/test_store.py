"""The store refuses what another network wrote, and deletes nothing that is still of use."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import save
from tiny import Network, engine, whole_batch

from trainer.checkpoint.names import MANIFEST, committed, complete, step_of
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.run_state import RunState


def steps(folder: Path) -> list[int]:
    return [step_of(path) for path in committed(folder)]


@pytest.mark.parametrize("stage", [0, 1])
def test_the_state_of_another_network_is_refused_with_names_and_both_shapes(
    tmp_path: Path, world: World, stage: int
) -> None:
    weights = Network(seed=0).state_dict()
    others = {
        "norm.bias": (torch.zeros(400), r"norm\.bias: \[400\] there, \[401\] here"),
        "first.weight": (torch.zeros(33, 401), r"first\.weight: \[33, 401\] there, \[401, 33\] here"),
        "further": (torch.zeros(3), r"further: \[3\] there, none here"),
        "offset": (torch.zeros(1), r"offset: \[1\] there, \[33\] here"),
    }
    trained = engine(world, zero_stage=stage)
    for name, (tensor, sentence) in others.items():
        folder = tmp_path / name
        save(folder, 7, {**weights, name: tensor})
        store = Store(folder, CheckpointConfig(), world)
        with pytest.raises(ValueError, match=rf"step_00000007: was written by a run of another network.*{sentence}"):
            store.load(trained)
        store.close()
    trained.close()


def test_a_damaged_checkpoint_does_not_push_a_whole_one_out(tmp_path: Path, world: World) -> None:
    trained = engine(world)
    store = Store(tmp_path, CheckpointConfig(keep_last=2, asynchronous=False), world)
    for step in (1, 2, 3):
        trained.step(whole_batch(step))
        store.save(trained, RunState(step=step))
    assert steps(tmp_path) == [2, 3]
    (tmp_path / "step_00000003" / MANIFEST).unlink()
    (tmp_path / "step_00000009").symlink_to(tmp_path / "step_00000002")
    loaded = store.load(trained)
    assert loaded is not None
    assert loaded.state.step == 2
    assert [sentence.split(": ")[0].rpartition("/")[2] for sentence in loaded.damaged] == ["step_00000009", MANIFEST]
    store.save(trained, RunState(step=4))
    assert [step_of(path) for path in complete(tmp_path)] == [2, 4]
    assert steps(tmp_path) == [2, 3, 4, 9]
    store.save(trained, RunState(step=5))
    assert steps(tmp_path) == [4, 5]
    assert (tmp_path / "step_00000009").is_symlink()
    assert [report.error for report in store.reports()] == [""] * 5
    store.close()
    trained.close()


def test_a_checkpoint_has_its_name_when_all_of_it_is_on_the_disk_and_before_an_older_one_goes(
    tmp_path: Path, world: World, disk_calls: list[tuple[str, str]]
) -> None:
    trained = engine(world)
    store = Store(tmp_path, CheckpointConfig(keep_last=1, asynchronous=False), world)
    store.save(trained, RunState(step=1))
    disk_calls.clear()
    store.save(trained, RunState(step=2))
    store.close()
    trained.close()
    beside, final = tmp_path / ".step_00000002.tmp", tmp_path / "step_00000002"
    manifest = beside / f".{MANIFEST}.{os.getpid()}"
    tensors = [("sync", str(beside / path.name)) for path in sorted(final.glob("*.safetensors"))]
    assert sorted(disk_calls[:3]) == tensors
    assert disk_calls[3:] == [
        ("sync", str(manifest)),
        ("name", str(beside / MANIFEST)),
        ("sync", str(beside)),
        ("name", str(final)),
        ("sync", str(tmp_path)),
        ("name", str(tmp_path / ".step_00000001.retired")),
    ]
