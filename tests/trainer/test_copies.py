"""Processes that a launcher started without torchrun's variables are refused: each would train alone, in one folder."""

from datetime import timedelta

import pytest
from torch._C._distributed_c10d import HashStore

from trainer.distributed.world import World

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
