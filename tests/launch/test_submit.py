from dataclasses import replace
from pathlib import Path

import pytest

from configs.run import RunConfig, load
from data_shards.manifest import Manifest, ShardEntry, Shards, Split, write
from launch import plan, submit
from launch.cluster import ClusterConfig
from launch.folder import RunFolder

MIB = 2**20
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "000000.tar").write_bytes(b"x" * 100)
    shard = ShardEntry("train/000000.tar", 64, 100, "0" * 64, "0" * 64, {})
    write(Manifest({"train": Split(Shards.of([shard]), (6,) * 10)}, tuple("0123456789")), folder)
    return folder


@pytest.fixture
def config(shards: Path) -> RunConfig:
    return load(CONFIG, [f"data.shards={shards}"])


def test_combinations_of_a_sweep_are_all_of_them_and_lists_are_one_value() -> None:
    chosen = list(submit.combinations(["a.b=1,2", "c=3", "d=[4,5]"]))
    assert chosen == [["a.b=1", "c=3", "d=[4,5]"], ["a.b=2", "c=3", "d=[4,5]"]]
    with pytest.raises(ValueError, match="expected key=value"):
        list(submit.combinations(["a.b"]))


def test_a_run_of_a_sweep_is_called_by_what_varies() -> None:
    assignments = ["optimizer.learning_rate=1e-3,2e-3", "seed=0,1", "train.steps=5"]
    assert submit.name_of(["optimizer.learning_rate=2e-3", "seed=1", "train.steps=5"], assignments) == (
        "learning_rate=2e-3_seed=1"
    )


def test_zero_divides_the_state_over_the_ranks() -> None:
    whole = 16 * MIB
    assert [plan.state_bytes(MIB, stage, 4) for stage in range(4)] == [whole, 10 * MIB, 7 * MIB, 4 * MIB]
    assert [plan.state_bytes(MIB, stage, 1) for stage in range(4)] == [whole] * 4


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused_before_the_queue(
    config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        plan.make(config, ClusterConfig(nodes=3), RunFolder(tmp_path / "run"))


def test_shards_that_are_missing_or_cut_are_named_before_the_queue(
    config: RunConfig, shards: Path, tmp_path: Path
) -> None:
    assert plan.make(config, ClusterConfig(), RunFolder(tmp_path / "run")).micro_batches == 1
    (shards / "train" / "000000.tar").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"000000.tar: is missing or not of the size"):
        plan.make(config, ClusterConfig(), RunFolder(tmp_path / "run"))


def test_a_signal_that_leaves_less_time_than_a_save_took_is_refused(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.metrics_path.write_text(
        '{"kind": "train", "step": 1, "step_seconds": 2.0}\n{"kind": "save", "step": 1, "seconds": 40.0}\n{"half'
    )
    plan.make(config, ClusterConfig(signal_seconds=84), folder)
    with pytest.raises(ValueError, match="signal_seconds is 83, but a stop takes 42 s; set it to 168"):
        plan.make(config, ClusterConfig(signal_seconds=83), folder)


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(config: RunConfig, tmp_path: Path) -> None:
    kept = replace(config, checkpoint=replace(config.checkpoint, keep_last=10**9))
    with pytest.raises(ValueError, match=r"lower checkpoint\.keep_last"):
        plan.make(kept, ClusterConfig(), RunFolder(tmp_path / "run"))
