"""Values that contradict each other are named; the cut of a batch is derived."""

import pytest

from trainer.config import CheckpointConfig, OptimizerConfig, ProfileConfig, TrainConfig, WatchConfig, joint_problems


@pytest.mark.parametrize("part", [OptimizerConfig, TrainConfig, CheckpointConfig, WatchConfig, ProfileConfig])
def test_defaults_have_no_problems(part: type) -> None:
    assert list(part().problems()) == []


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (TrainConfig(steps=0), "steps"),
        (TrainConfig(zero_stage=4), "zero_stage"),
        (TrainConfig(zero_stage=0, precision="fp16"), "precision"),
        (OptimizerConfig(schedule="step"), "decay_steps"),
        (OptimizerConfig(decay_steps=(3, 2)), "decay_steps"),
        (OptimizerConfig(beta1=1.5), "beta1"),
        (CheckpointConfig(keep_last=0), "keep_last"),
    ],
)
def test_a_contradiction_is_named_by_its_key(config: object, key: str) -> None:
    assert key in dict(config.problems())


def test_the_micro_batch_is_the_whole_share_unless_one_is_given() -> None:
    assert TrainConfig(global_batch=32).micro_batches_per_rank(4) == 1
    assert TrainConfig(global_batch=32, micro_batch=2).micro_batches_per_rank(4) == 4
    assert TrainConfig(global_batch=32, micro_batch=100).micro_batches_per_rank(4) == 1


@pytest.mark.parametrize(("config", "world_size"), [(TrainConfig(global_batch=32), 3), (TrainConfig(32, 32, 3), 2)])
def test_a_batch_that_cannot_be_cut_evenly_is_refused(config: object, world_size: int) -> None:
    with pytest.raises(ValueError, match="train"):
        config.micro_batches_per_rank(world_size)


def test_lamb_over_cut_weights_is_a_problem_of_both_parts() -> None:
    lamb = OptimizerConfig(name="lamb")
    assert [key for key, _ in joint_problems(lamb, TrainConfig(zero_stage=3))] == ["optimizer.name"]
    assert all(list(joint_problems(lamb, TrainConfig(zero_stage=stage))) == [] for stage in range(3))
