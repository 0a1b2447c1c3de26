"""Each process takes a GPU of its own, whatever its launcher shows it, or the run is refused."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import Network

from trainer.config import TrainConfig
from trainer.distributed import devices
from trainer.distributed.devices import Gpu
from trainer.distributed.world import World
from trainer.engine.deepspeed_start import initialize


@pytest.mark.parametrize("visible", [4, 8])
def test_processes_that_see_all_gpus_take_one_each(visible: int) -> None:
    assert [devices.index(local_rank, visible) for local_rank in range(4)] == [0, 1, 2, 3]


def test_a_process_that_is_shown_its_own_gpu_alone_takes_that() -> None:
    assert [devices.index(local_rank, 1) for local_rank in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("local_rank", [0, 3])
def test_deepspeed_is_given_the_device_that_the_process_took(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # As srun --gpus-per-task=1 leaves it: one visible device, the local rank of the node.
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    world = World(local_rank, 4, local_rank, torch.device("cuda", 0))
    taken = []

    def started(**_: object) -> object:
        taken.append(os.environ["LOCAL_RANK"])
        raise InterruptedError

    monkeypatch.setattr("deepspeed.initialize", started)
    network = Network(0)
    with pytest.raises(InterruptedError):
        initialize(network, torch.optim.AdamW(network.parameters()), {}, TrainConfig(), world)
    assert taken == ["0"]


def test_gpus_of_their_own_are_taken_and_those_of_two_nodes_are_others() -> None:
    alone = [Gpu("a", f"GPU-{number}") for number in range(4)]
    devices.refuse_shared(alone)
    devices.refuse_shared([*alone, *(Gpu("b", gpu.uuid) for gpu in alone)])


@pytest.mark.parametrize(("processes", "gpus", "said"), [(4, 2, "2 GPUs"), (2, 1, "1 GPU")])
def test_more_processes_than_gpus_are_refused_in_a_sentence(processes: int, gpus: int, said: str) -> None:
    taken = [Gpu("node7", f"GPU-{devices.index(local_rank, gpus)}") for local_rank in range(processes)]
    with pytest.raises(
        ValueError, match=f"node7 has {processes} processes and {said} that they see: ranks 0 and {gpus} would share"
    ):
        devices.refuse_shared(taken)


def test_slices_of_one_gpu_are_told_apart_by_the_names_that_the_launcher_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="11-22"))
    first, second = (devices.of_this_process(0, {"CUDA_VISIBLE_DEVICES": f"MIG-{name}"}) for name in ("a", "b"))
    devices.refuse_shared([first, second])
    same = [devices.of_this_process(0, {"CUDA_VISIBLE_DEVICES": visible}) for visible in ("0", "GPU-11-22")]
    with pytest.raises(ValueError, match="would share one"):
        devices.refuse_shared(same)
