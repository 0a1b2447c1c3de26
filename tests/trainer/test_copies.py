"""Processes that a launcher started without torchrun's variables are refused: each would train alone, in one folder."""

import os
import socket
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from trainer.distributed.world import World, _device, _local_store

LAUNCHERS = [
    {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
    {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
    {"PMI_SIZE": "3", "PMI_RANK": "0"},
]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", *(name for each in LAUNCHERS for name in each)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variables", LAUNCHERS)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_copies_of_one_command_are_refused(
    variables: dict[str, str], rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (variables | {list(variables)[1]: rank}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"started [234] processes .*`perceiver submit` start them, or torchrun"):
        World.from_environment()


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_PTY_PORT": "4000"},
    ],
)
def test_the_only_process_of_an_allocation_is_alone(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert World.from_environment().world_size == 1


def test_half_of_torchruns_variables_are_named_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="RANK is set but WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not"):
        World.from_environment()


@pytest.mark.parametrize(
    ("address", "agent", "is_local"),
    [
        ("127.0.0.1", "", True),
        ("localhost", "False", True),
        ("::1", "", True),
        ("127.0.0.1", "True", False),
        ("node-7", "", False),
    ],
)
def test_ranks_of_one_machine_meet_by_themselves_unless_a_launcher_has_a_place_for_them(
    monkeypatch: pytest.MonkeyPatch, address: str, agent: str, is_local: bool
) -> None:
    met = []
    monkeypatch.setattr("trainer.distributed.world._local_store", lambda *given: met.append(given) or HashStore())
    monkeypatch.setattr("trainer.distributed.world.dist.init_process_group", lambda *_, **options: met.append(options))
    variables = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "1", "MASTER_ADDR": address}
    for name, value in {**variables, "TORCHELASTIC_USE_AGENT_STORE": agent}.items():
        monkeypatch.setenv(name, value)
    world = World.from_environment(30.0)
    assert (world.rank, world.world_size, world.local_rank) == (1, 2, 1)
    options = met[-1]
    assert (options["store"] is not None) is is_local is (len(met) == 2)
    assert (options["rank"], options["world_size"], options["timeout"]) == (1, 2, timedelta(seconds=30))
    if is_local:
        assert met[0] == (1, 2, timedelta(seconds=30))


@pytest.mark.parametrize(
    ("device", "world_size", "backend", "is_lazy"),
    [
        ("cpu", 64, "gloo", None),
        ("cpu", 65, "gloo", "1"),
        ("cuda:1", 64, "cpu:gloo,cuda:nccl", None),
        ("cuda:1", 65, "cpu:gloo,cuda:nccl", "1"),
    ],
)
def test_objects_travel_over_gloo_and_many_ranks_connect_when_they_have_something_to_exchange(
    monkeypatch: pytest.MonkeyPatch, device: str, world_size: int, backend: str, is_lazy: str | None
) -> None:
    met: list[tuple[object, ...]] = []
    monkeypatch.setattr("trainer.distributed.world.dist.init_process_group", lambda *given, **_: met.append(given))
    monkeypatch.setattr("trainer.distributed.world._device", lambda local: torch.device(device) if local == 1 else None)
    monkeypatch.setattr("trainer.distributed.world._refuse_few_descriptors", lambda *_: None)
    # Set first, so that what is set meanwhile is gone after the test.
    monkeypatch.setenv("TORCH_GLOO_LAZY_INIT", "")
    monkeypatch.delenv("TORCH_GLOO_LAZY_INIT")
    variables = {"RANK": "3", "LOCAL_RANK": "1", "MASTER_PORT": "1", "MASTER_ADDR": "node-7"}
    for name, value in {**variables, "WORLD_SIZE": str(world_size)}.items():
        monkeypatch.setenv(name, value)
    world = World.from_environment()
    assert met == [(backend,)]
    assert world == World(3, world_size, 1, torch.device(device))
    assert os.environ.get("TORCH_GLOO_LAZY_INIT") == is_lazy


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda", "cpu:gloo,cuda:nccl")])
def test_a_process_alone_joins_itself_once(monkeypatch: pytest.MonkeyPatch, device: str, backend: str) -> None:
    met: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "trainer.distributed.world.dist.init_process_group",
        lambda *given, store, **options: met.append((*given, type(store).__name__, options)),
    )
    monkeypatch.setattr("trainer.distributed.world._device", lambda local: torch.device(device, local))
    for is_joined in (False, True):
        monkeypatch.setattr("trainer.distributed.world.dist.is_initialized", lambda: is_joined)  # noqa: B023
        assert World.alone() == World(0, 1, 0, torch.device(device, 0))
    assert met == [(backend, "HashStore", {"rank": 0, "world_size": 1})]


def test_a_process_takes_the_gpu_of_its_place_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    assert [_device(local_rank) for local_rank in range(3)] == [torch.device("cuda", index) for index in (0, 1, 0)]
    assert taken == [torch.device("cuda", index) for index in (0, 1, 0)]


@pytest.mark.parametrize(("is_joined", "world_size"), [(False, 2), (True, 1), (True, 2)])
def test_processes_that_torch_has_joined_talk_over_a_channel_of_their_own(
    monkeypatch: pytest.MonkeyPatch, is_joined: bool, world_size: int
) -> None:
    made: list[dict[str, object]] = []
    of_torch = {
        "is_initialized": lambda: is_joined,
        "get_world_size": lambda: world_size,
        "get_rank": lambda: 1,
        "new_group": lambda **options: made.append(options) or "channel",
    }
    for name, answer in of_torch.items():
        monkeypatch.setattr(f"trainer.distributed.world.dist.{name}", answer)
    found = World.of_torch(7.0)
    if is_joined and world_size == 2:
        assert found == World(1, 2, 0, torch.device("cpu"), "channel")  # type: ignore[arg-type]  # stands for a group
        assert made == [{"backend": "gloo", "timeout": timedelta(seconds=7)}]
    else:
        assert (found, made) == (World(0, 1, 0, torch.device("cpu")), [])


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_of_one_machine_meet_on_it_alone(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    met: list[Any] = []
    monkeypatch.setattr("trainer.distributed.world.TCPStore", lambda *given, **options: met.extend((given, options)))
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    # Set first, so that what is set meanwhile is gone after the test.
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME")
    _local_store(rank, 2, timedelta(seconds=7))
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("mine", "lo")
    given, options = met
    assert given == ("127.0.0.1", 0, 2, rank == 0, timedelta(seconds=7))
    listening = options["master_listen_fd"]
    if rank == 0:
        with socket.socket(fileno=listening) as server:
            assert server.getsockname()[0] == "127.0.0.1"
            assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    else:
        assert listening is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [("RANK", "x"), ("WORLD_SIZE", "2;"), ("LOCAL_RANK", "-1"), ("RANK", ""), ("WORLD_SIZE", "1.0")],
)
def test_what_a_launcher_says_in_words_that_are_no_numbers_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    said = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, text in {**said, variable: value}.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=rf"{variable}='.*' is not a number"):
        World.from_environment()


def test_a_rank_that_is_not_among_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=r"RANK=2 is not below WORLD_SIZE=2"):
        World.from_environment()
