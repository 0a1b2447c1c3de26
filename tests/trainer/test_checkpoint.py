"""A checkpoint loads to the last bit at every ZeRO stage and world size, and a half one is never seen."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.checkpoint.layout import read_weights
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import complete

Saved = tuple[Path, int, dict]
STAGES = ("0", "1", "2", "3")
# By the number of ranks that save: the distances from their stage to those at which as many ranks load; how many ranks
# load elsewhere, and at which distances from the stage; and the steps that are compared at stage 1. Every pair of
# stages is there with the same number of ranks and with another one; all at all numbers are twice as many.
HERE = {1: (0, 1), 2: (0, 1, 2, 3), 4: (0, 3)}
ELSEWHERE = {1: (2, (0, 1)), 2: (1, (2, 3)), 4: (1, (0, 3))}
NUM_STEPS = {1: 50, 2: 50, 4: 3}
# Another cut adds the same numbers in another order.
RELATIVE = 1e-5


@pytest.fixture(scope="module", params=[1, 2, 4])
def saved(
    request: pytest.FixtureRequest, run_ranks: Callable[..., list], tmp_path_factory: pytest.TempPathFactory
) -> Saved:
    folder, ranks = tmp_path_factory.mktemp(f"saved_by_{request.param}"), request.param
    return folder, ranks, run_ranks("resume", ranks, folder, "save", words(HERE[ranks]), NUM_STEPS[ranks])[0]


def words(distances: tuple[int, ...]) -> str:
    return ",".join(map(str, distances))


def assert_alike(found: list[float], expected: list[float]) -> None:
    assert 3 <= len(found) <= len(expected)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected[: len(found)]), rtol=RELATIVE, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_steps_after_a_resume_are_equal_to_the_last_bit(saved: Saved, stage: str) -> None:
    result = saved[2][stage]
    assert len(result["straight_losses"]) == (NUM_STEPS[saved[1]] if stage == "1" else 3)
    assert result["resumed_losses_0"] == result["straight_losses"]
    assert result["resumed_0"] == result["straight"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_an_engine_that_has_trained_on_goes_back_to_the_last_bit(saved: Saved, stage: str) -> None:
    # At stage 3 small weights stay gathered between steps: they must not outlive what they were gathered from.
    result = saved[2][stage]
    assert result["back_losses"] == result["straight_losses"][:3]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_what_follows_a_save_does_not_change_what_was_saved(saved: Saved, stage: str) -> None:
    # Stages 0 and 2 save in the background while the state goes on; stage order is part of the scenario.
    result = saved[2][stage]
    assert result["loaded_0"] == result["saved"]
    assert result["resumed_0"] != result["saved"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_another_stage_takes_over_the_very_state_and_goes_on_alike(saved: Saved, stage: str) -> None:
    result = saved[2][stage]
    for distance in HERE[saved[1]][1:]:
        assert result[f"loaded_{distance}"] == result["saved"]
        assert_alike(result[f"resumed_losses_{distance}"], result["straight_losses"])


@pytest.mark.slow
def test_another_world_size_takes_over_the_very_state_and_goes_on_alike(
    saved: Saved, run_ranks: Callable[..., list]
) -> None:
    folder, world_size, result = saved
    ranks, distances = ELSEWHERE[world_size]
    elsewhere = run_ranks("resume", ranks, folder, "load", words(distances), NUM_STEPS[world_size])[0]
    assert len(elsewhere["1"][f"resumed_losses_{distances[0]}"]) == NUM_STEPS[world_size]
    for stage in STAGES:
        for distance in distances:
            assert elsewhere[stage][f"loaded_{distance}"] == result[stage]["saved"]
            assert_alike(elsewhere[stage][f"resumed_losses_{distance}"], result[stage]["straight_losses"])


@pytest.mark.slow
def test_the_files_are_safetensors_by_parameter_name_written_by_all_ranks(saved: Saved) -> None:
    folder, world_size, _ = saved
    for stage in STAGES:
        [checkpoint] = complete(folder / stage)
        files = sorted(checkpoint.glob("*.safetensors"))
        # Of more ranks some have nothing to write in so small a network.
        assert len(files) == 4 * world_size if world_size <= 2 else 4 <= len(files) <= 4 * world_size
        assert {path.name for path in files} == read_manifest(checkpoint).files.keys()
        weights = {name: tensor for path in checkpoint.glob("weight-*") for name, tensor in load_file(path).items()}
        assert weights.keys() == {
            "first.weight",
            "first.bias",
            "norm.weight",
            "norm.bias",
            "last.weight",
            "last.bias",
        } | {
            "frozen",
            "offset",
        }
        assert weights["first.weight"].shape == (401, 33)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in read_weights(checkpoint).items())


@pytest.mark.slow
def test_a_rank_killed_while_it_writes_leaves_the_checkpoint_before(
    run_ranks: Callable[..., list], tmp_path: Path
) -> None:
    statuses = run_ranks("faults", 2, tmp_path, "kill", fails=True)
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] != 0
    assert [path.name for path in complete(tmp_path)] == ["step_00000001"]
    for rank in run_ranks("faults", 2, tmp_path, "look"):
        assert rank == {"step": 1, "damaged": []}


@pytest.mark.slow
def test_a_disk_that_is_full_costs_one_save_and_no_older_checkpoint(
    run_ranks: Callable[..., list], tmp_path: Path
) -> None:
    for rank in run_ranks("faults", 2, tmp_path, "full"):
        assert rank["errors"][0] == ""
        assert "rank 1" in rank["errors"][1]
        assert "File too large" in rank["errors"][1]
        assert rank["names"] == ["step_00000001"]
        assert rank["names_later"] == ["step_00000001", "step_00000003"]
        assert rank["step"] == 3
    damage(tmp_path / "step_00000003")
    for rank in run_ranks("faults", 2, tmp_path, "look"):
        assert rank["step"] == 1
        [sentence] = rank["damaged"]
        assert "step_00000003/exp_avg-00001-of-00002.safetensors: content does not match its hash" in sentence


def damage(checkpoint: Path) -> None:
    """Flip one bit in the last file of the first moments."""
    path = checkpoint / "exp_avg-00001-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
