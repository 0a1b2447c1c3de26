"""Processes that a launcher started without torchrun's variables are refused: each would train alone, in one folder."""

import pytest

from trainer.world import World

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
