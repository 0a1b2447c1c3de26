import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import RunConfig, load
from data_shards.config import DatasetConfig
from launch.lifecycle import attempts, cluster
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.planning import plan
from launch.planning.frozen_parameters import Share
from launch.run.creation import open_run
from launch.schedulers import submission
from launch.supervise import local, submit
from model.budget.flops import network_cost, total
from model.perceiver import Perceiver
from trainer.health.run_lock import RunLock

Door = Callable[..., list[dict[str, Any]]]
MIB = 2**20
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.fixture
def config(shards: Path) -> RunConfig:
    return load(CONFIG, [f"data.shards={shards}"])


def test_a_dry_run_shows_the_script_and_the_settings_and_makes_nothing(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = ClusterConfig(nodes=2, processes_per_node=2)
    assert submit.submit(config, tmp_path / "run", profile, dry_run=True, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["plan"]["world_size"] == 4
    assert "#SBATCH --nodes=2" in shown["script"].splitlines()
    assert shown["deepspeed"]["train_batch_size"] == config.train.global_batch
    assert submit.submit(config, tmp_path / "run", profile, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=printed, text=True, check=False).returncode == 0
    assert f'#  "train_batch_size": {config.train.global_batch},' in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("gpus", "expected"), [(0, (False, False)), (2, (True, True))])
def test_a_dry_run_shows_the_settings_of_the_device_that_the_job_has(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], gpus: int, expected: tuple[bool, bool]
) -> None:
    profile = ClusterConfig(nodes=2, processes_per_node=2, gpus_per_node=gpus)
    config = replace(config, train=replace(config.train, zero_stage=1, precision="auto"))
    assert submit.submit(config, tmp_path / "run", profile, dry_run=True, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)["deepspeed"]
    assert ("torch_autocast" in shown, shown["zero_optimization"]["overlap_comm"]) == expected


def test_what_the_shell_asked_of_slurm_is_named_beside_the_json(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    submit.submit(config, tmp_path / "run", ClusterConfig(), dry_run=True, as_json=True)
    told = capsys.readouterr()
    assert "not passed on from this shell: SBATCH_TIMELIMIT, SLURM_MEM_PER_CPU" in told.err
    assert json.loads(told.out)["plan"]["world_size"] == 1


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
    planned = plan.make(config, ClusterConfig(), RunFolder(tmp_path / "run"))
    assert planned.micro_batches == 1
    assert any("not measured yet" in sentence for sentence in planned.sentences())
    (shards / "train" / "000000.tar").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"000000.tar: has 99 bytes, the manifest says 100"):
        plan.make(config, ClusterConfig(), RunFolder(tmp_path / "run"))


def test_a_signal_that_leaves_less_time_than_a_save_took_is_refused(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.metrics_path.write_text(
        '{"kind": "train", "step": 1, "step_seconds": 2.0}\n{"kind": "save", "step": 1, "seconds": 40.0}\n{"half'
    )
    planned = plan.make(config, ClusterConfig(signal_seconds=84), folder)
    assert "a stop takes 42.0 s (measured)" in planned.sentences()
    with pytest.raises(ValueError, match="signal_seconds is 83, but a stop takes 42 s; set it to 168"):
        plan.make(config, ClusterConfig(signal_seconds=83), folder)


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(config: RunConfig, tmp_path: Path) -> None:
    kept = replace(config, checkpoint=replace(config.checkpoint, keep_last=10**9))
    with pytest.raises(ValueError, match=r"lower checkpoint\.keep_last"):
        plan.make(kept, ClusterConfig(), RunFolder(tmp_path / "run"))


def test_the_memory_of_a_rank_is_its_state_and_the_activations_of_a_micro_batch(
    config: RunConfig, tmp_path: Path
) -> None:
    large = replace(config, model=replace(config.model, num_latents=4096, num_blocks=64, share_blocks=True))
    whole = plan.make(large, ClusterConfig(), RunFolder(tmp_path / "run"))
    assert whole.activation_bytes > 10 * plan.GIB > whole.state_bytes
    in_parts = replace(large, train=replace(large.train, micro_batch=16))
    assert plan.make(in_parts, ClusterConfig(), RunFolder(tmp_path / "run")).activation_bytes * 4 == (
        whole.activation_bytes
    )
    halves = [replace(large, train=replace(large.train, precision=precision)) for precision in ("bf16", "fp16")]
    bf16, fp16 = (plan.make(half, ClusterConfig(), RunFolder(tmp_path)) for half in halves)
    assert fp16.activation_bytes * 2 == whole.activation_bytes
    # The residual stream stays fp32.
    assert 0.55 < bf16.activation_bytes / whole.activation_bytes < 0.75
    with pytest.raises(ValueError, match=r"a node's ranks need .* GiB, memory_gib is 8; raise it or use more nodes"):
        plan.make(large, ClusterConfig(memory_gib=8), RunFolder(tmp_path / "run"))
    gpus = ClusterConfig(gpus_per_node=1, gpu_memory_gib=8)
    with pytest.raises(ValueError, match=r"a rank needs .* GiB, gpu_memory_gib is 8"):
        plan.make(large, gpus, RunFolder(tmp_path / "run"))
    fitting = replace(large, train=replace(large.train, activation_memory_gib=4.0))
    assert plan.make(fitting, gpus, RunFolder(tmp_path / "run")).activation_bytes <= 4 * plan.GIB


def test_a_run_whose_script_cannot_be_written_leaves_no_folder(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have no line break"):
        submit.submit(config, tmp_path / "a\nb", ClusterConfig(), dry_run=False)
    with pytest.raises(ValueError, match="setup in the profile is not valid shell"):
        submit.submit(config, tmp_path / "run", ClusterConfig(setup=("fi",)), dry_run=False)
    with pytest.raises(ValueError, match="setup in the profile is not valid shell"):
        submit.sweep(CONFIG, rates(tmp_path / "shards", "1", "2"), tmp_path / "rates", ClusterConfig(setup=("fi",)))
    assert not [path for path in tmp_path.iterdir() if path.name != "shards"]


@pytest.fixture
def slurm_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for a Slurm whose arrays have two tasks at most and which knows no job; return where they are."""
    commands = tmp_path / "commands"
    commands.mkdir()
    texts = {
        "sbatch": "#!/bin/sh\ncd $(dirname $0); echo x >> count; cat > $(wc -l < count).sh; wc -l < count\n",
        "scontrol": "#!/bin/sh\necho 'MaxArraySize            = 2'\n",
        "squeue": "#!/bin/sh\n",
    }
    for name, text in texts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return commands


def rates(shards: Path, *values: str) -> list[str]:
    return [f"optimizer.learning_rate={','.join(values)}", f"data.shards={shards}"]


def test_a_sweep_larger_than_an_array_may_be_becomes_several(
    shards: Path, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rates"
    assert submit.sweep(CONFIG, rates(shards, "1", "2", "3", "4", "5"), folder, ClusterConfig(), as_json=True) == 0
    sent = json.loads(capsys.readouterr().out)
    assert [each["job_id"] for each in sent] == ["1_0", "1_1", "2_0", "2_1", "3"]
    assert [submission.read(RunFolder(Path(each["run"]))).job_id for each in sent] == [each["job_id"] for each in sent]
    assert "#SBATCH --array=0-1%2" in (slurm_commands / "2.sh").read_text()
    assert "--array" not in (slurm_commands / "3.sh").read_text()


def test_runs_that_were_submitted_before_slurm_refused_are_known(
    shards: Path, tmp_path: Path, slurm_commands: Path
) -> None:
    text = (slurm_commands / "sbatch").read_text()
    (slurm_commands / "sbatch").write_text(f"{text}[ $(wc -l < count) -lt 2 ] || {{ echo full >&2; exit 1; }}\n")
    with pytest.raises(ValueError, match=r"2 of 3 runs were submitted, up to .*rate=2; then sbatch refused .*: full"):
        submit.sweep(CONFIG, rates(shards, "1", "2", "3"), tmp_path / "rates", ClusterConfig())
    known = [submission.read(RunFolder(tmp_path / "rates" / f"learning_rate={rate}")) for rate in "123"]
    assert [each and each.job_id for each in known] == ["1_0", "1_1", None]


def test_a_dry_run_of_a_sweep_shows_its_runs_and_scripts_and_makes_nothing(
    shards: Path, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (CONFIG, rates(shards, "1", "2", "3"), tmp_path / "rates", ClusterConfig())
    assert submit.sweep(*words, dry_run=True, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [Path(run).name for run in shown["runs"]] == [f"learning_rate={rate}" for rate in "123"]
    assert len(shown["scripts"]) == 2
    assert submit.sweep(*words, dry_run=True) == 0
    assert subprocess.run(["bash", "-n"], input=capsys.readouterr().out, text=True, check=False).returncode == 0
    runs = submit.sweep_runs(*words[:3])
    assert local.sweep(runs, 2, dry_run=True) == 0
    assert "learning_rate=3" in capsys.readouterr().out
    assert not (tmp_path / "rates").exists()
    assert not (slurm_commands / "count").exists()


def test_two_runs_of_a_sweep_never_share_a_folder_and_a_path_in_a_value_makes_none(
    shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="two runs of the sweep would be called learning_rate=1"):
        submit.sweep_runs(CONFIG, rates(shards, "1", "1"), tmp_path)
    runs = submit.sweep_runs(CONFIG, [f"data.shards={shards},{shards}/other"], tmp_path)
    assert {folder.path.parent for _, folder in runs} == {tmp_path}


def test_a_finished_run_is_not_submitted_again_and_fork_is_named(
    config: RunConfig, shards: Path, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (CONFIG, rates(shards, "1", "2"), tmp_path / "rates", ClusterConfig())
    submit.sweep(*words)
    assert capsys.readouterr().out.splitlines()[-2] == "submitted 2 runs as the tasks of job 1"
    finished = RunFolder(tmp_path / "rates" / "learning_rate=1")
    complete_checkpoint(finished, config.train.steps)
    with pytest.raises(ValueError, match=r"is finished at step 600; .*: perceiver fork .* NEW train.steps=1200"):
        submit.resume(finished.path, None, {})
    with pytest.raises(ValueError, match="is finished at step 600"):
        submit.submit(load(finished.config_path), finished.path, ClusterConfig(), dry_run=False)
    capsys.readouterr()
    assert submit.sweep(*words, as_json=True) == 0
    told = capsys.readouterr()
    assert "1 of 2 runs are finished and not submitted" in told.err
    assert json.loads(told.out)["run"].endswith("learning_rate=2")


def test_a_sweep_of_which_one_run_is_trained_makes_none_of_the_others(
    shards: Path, tmp_path: Path, slurm_commands: Path
) -> None:
    words = (CONFIG, rates(shards, "1", "2"), tmp_path / "rates", ClusterConfig())
    _, (config, second) = submit.sweep_runs(*words[:3])
    open_run(config, second)
    with RunLock(second.lock_path), pytest.raises(ValueError, match=r"learning_rate=2: .* trains in this run"):
        submit.sweep(*words)
    assert [path.name for path in (tmp_path / "rates").iterdir()] == ["learning_rate=2"]


def complete_checkpoint(folder: RunFolder, step: int) -> None:
    """Leave what says that a checkpoint is complete."""
    save(folder.checkpoints_folder, step, {"a": torch.zeros(1)})


def test_a_submission_that_is_refused_takes_no_stop_away(
    config: RunConfig, tmp_path: Path, slurm_commands: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    folder.stop_path.touch()
    (slurm_commands / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(ValueError, match="invalid partition"):
        submit.submit(config, folder.path, ClusterConfig(), dry_run=False)
    assert folder.stop_path.exists()


def test_a_run_that_a_start_without_slurm_trains_is_not_submitted(
    config: RunConfig, tmp_path: Path, slurm_commands: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    folder.stop_path.touch()
    with RunLock(folder.lock_path):
        with pytest.raises(ValueError, match=rf"process {os.getpid()} on .*, trains in this run"):
            submit.submit(config, folder.path, ClusterConfig(), dry_run=False)
        (folder.cluster_path).write_text(cluster.dump(ClusterConfig()))
        with pytest.raises(ValueError, match="trains in this run"):
            submit.resume(folder.path, None, {})
        # What would change the run changes nothing of one that trains.
        before = folder.config_path.read_bytes()
        with pytest.raises(ValueError, match="trains in this run"):
            submit.resume(folder.path, None, {}, ["data.num_threads=3"])
        changed = replace(config, data=replace(config.data, num_threads=3))
        with pytest.raises(ValueError, match="trains in this run"):
            submit.submit(changed, folder.path, ClusterConfig(), dry_run=False)
        assert folder.config_path.read_bytes() == before
    assert folder.stop_path.exists()
    assert not (slurm_commands / "count").exists()


def test_a_run_that_is_resumed_may_have_plug_ins(
    config: RunConfig, tmp_path: Path, slurm_commands: Path, door: Door
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    folder.cluster_path.write_text(cluster.dump(ClusterConfig()))
    trusted = door("launch.supervise.submit.trust", None)
    assert submit.resume(folder.path, None, {}) == 0
    assert [list(each.values()) for each in trusted] == [[folder.path]]


def test_the_plan_is_in_numbers_that_can_be_checked_by_hand(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    planned = plan.make(config, ClusterConfig(nodes=2, processes_per_node=2), folder)
    assert (planned.world_size, planned.micro_batches) == (4, 1)
    assert planned.checkpoint_bytes == 12 * planned.parameters
    assert planned.state_bytes == plan.state_bytes(planned.parameters, config.train.zero_stage, 4)
    rules = ("encoder.*", "inputs.*=10")
    frozen = plan.make(replace(config, optimizer=replace(config.optimizer, freeze=rules)), ClusterConfig(), folder)
    network = Perceiver(config.model, seed=0)
    fixed = sum(parameter.numel() for parameter in network.encoder.parameters())
    # What is frozen for the whole run is in a checkpoint, and has no moments there.
    assert frozen.checkpoint_bytes == planned.checkpoint_bytes - 8 * fixed
    assert frozen.state_bytes == 16 * planned.parameters - 12 * fixed
    assert planned.kept_checkpoints == config.checkpoint.keep_last + 1
    best = replace(config, checkpoint=replace(config.checkpoint, keep_best=True))
    (Path(config.data.shards) / "test").mkdir()
    assert plan.make(best, ClusterConfig(), folder).kept_checkpoints == config.checkpoint.keep_last + 2
    assert planned.save_seconds == planned.checkpoint_bytes / plan.ASSUMED_WRITE_BYTES_PER_SECOND
    assert not planned.is_measured
    in_words = list(replace(planned, parameters=1_500, state_bytes=plan.GIB, activation_bytes=2 * plan.GIB).sentences())
    assert in_words[0] == "4 ranks, 1 micro-batch per step, 1,500 parameters"
    assert in_words[1].startswith("1.000 GiB per rank for weights, gradients and moments, 2.000 GiB")
    kept = replace(planned, kept_checkpoints=2, checkpoint_bytes=plan.GIB, free_bytes=10 * plan.GIB)
    assert list(kept.sentences())[2] == "2 checkpoints take 2.000 GiB of 10 GiB that are free"


def test_a_plan_is_measured_by_the_longest_step_and_the_longest_save(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    rows = [("train", "step_seconds", value) for value in (1.0, 3.0, 2.0)]
    rows += [("save", "seconds", value) for value in (5.0, 7.0, 6.0)]
    folder.metrics_path.write_text(
        "".join(json.dumps({"kind": kind, "step": 1, key: value}) + "\n" for kind, key, value in rows)
        + '{"kind": "evaluation", "step": 1, "seconds": 99.0}\n'
    )
    planned = plan.make(config, ClusterConfig(), folder)
    assert (planned.save_seconds, planned.is_measured) == (10.0, True)


def test_what_does_not_fit_is_told_of_gpus_by_rank_and_of_a_node_by_all_its_ranks(
    config: RunConfig, tmp_path: Path
) -> None:
    large = plan.make(config, ClusterConfig(), RunFolder(tmp_path))
    fits = replace(large, state_bytes=3 * plan.GIB, activation_bytes=plan.GIB, save_seconds=30.0)

    def told(profile: ClusterConfig, planned: plan.Plan = fits) -> str:
        return " ".join(plan._problems(planned, profile))

    assert told(ClusterConfig(gres="gpu:1", gpu_memory_gib=4)) == ""
    assert "a rank needs 4.0 GiB, gpu_memory_gib is 3" in told(ClusterConfig(gres="gpu:1", gpu_memory_gib=3))
    assert told(ClusterConfig(gpu_memory_gib=3)) == "", "no GPU is asked for"
    assert told(ClusterConfig(processes_per_node=2, memory_gib=8)) == ""
    assert "a node's ranks need 8.0 GiB, memory_gib is 7" in told(ClusterConfig(processes_per_node=2, memory_gib=7))
    assert told(ClusterConfig(processes_per_node=2, gpus_per_node=2, memory_gib=7)) == ""
    assert told(ClusterConfig(signal_seconds=60)) == ""
    assert "signal_seconds is 59, but a stop takes 30 s; set it to 120" in told(ClusterConfig(signal_seconds=59))
    disk = replace(fits, kept_checkpoints=4, checkpoint_bytes=plan.GIB, free_bytes=4 * plan.GIB)
    assert told(ClusterConfig(), disk) == ""
    assert "checkpoints need 4.0 GiB, 3.0 GiB are free" in told(ClusterConfig(), replace(disk, free_bytes=3 * plan.GIB))


def test_a_run_is_kept_away_from_nodes_on_which_it_failed_too_often(
    config: RunConfig, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"echo 'n{number}|idle|main*|fast'; " for number in range(1, 5))
    (slurm_commands / "sinfo").write_text(f"#!/bin/sh\n{rows}\n")
    (slurm_commands / "sinfo").chmod(0o755)
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    for number in (1, 2):
        attempts.begin(folder, job_id="6", nodes=["n1", "n2"])
        for rank in (0, 1):
            attempts.write_rank(folder, number, RankRecord(rank, f"n{rank + 1}", 5, rank))
        attempts.end(folder, number, 1)
    folder.stop_path.touch()
    before = time.time()
    assert submit.submit(config, folder.path, ClusterConfig(nodes=2, exclude="n4"), dry_run=False) == 0
    assert "#SBATCH --exclude=n4,n2" in (slurm_commands / "1.sh").read_text()
    assert not folder.stop_path.exists(), "the job would end with its first step"
    sent = submission.read(folder)
    assert sent is not None
    assert (sent.job_id, sent.nodes, sent.processes_per_node) == ("1", 2, 1)
    assert sent.submitted_at >= before
    assert sent.job_name in (slurm_commands / "1.sh").read_text()
    assert cluster.load(str(folder.cluster_path)).nodes == 2
    told = capsys.readouterr().out
    assert "submitted job 1\n" in told
    assert "perceiver status --watch" in told
    # On four nodes it cannot do without it.
    submit.resume(folder.path, None, {"nodes": 4}, as_json=True)
    assert "#SBATCH --exclude=n4\n" in (slurm_commands / "2.sh").read_text()
    assert json.loads(capsys.readouterr().out) == {"run": str(folder.path), "job_id": "2"}
    assert submit.resume(folder.path, None, {}, ["data.num_threads=3"]) == 0
    assert load(folder.config_path).data.num_threads == 3


def test_a_run_that_waits_or_was_never_submitted_is_not_resumed(
    config: RunConfig, tmp_path: Path, slurm_commands: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    with pytest.raises(ValueError, match="was never submitted; name a profile with --cluster"):
        submit.resume(folder.path, None, {})
    submit.submit(config, folder.path, ClusterConfig(), dry_run=False)
    sent = submission.read(folder)
    assert sent is not None
    squeue = f"#!/bin/sh\necho 'PENDING|Resources||{sent.job_name}|(null)'\n"
    (slurm_commands / "squeue").write_text(squeue)
    for again in (
        lambda: submit.resume(folder.path, None, {}),
        lambda: submit.submit(config, folder.path, ClusterConfig(), dry_run=False),
    ):
        with pytest.raises(ValueError, match=r"job 1 of this run is PENDING \(Resources\)"):
            again()
    assert not (slurm_commands / "2.sh").exists()


def test_what_was_submitted_is_told_with_its_plan_and_what_may_come_next(
    config: RunConfig, shards: Path, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    assert submit.submit(config, Path("a run"), ClusterConfig(), dry_run=False) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    planned = plan.make(config, ClusterConfig(), RunFolder(tmp_path / "a run"))
    assert lines[0] == f"  {next(planned.sentences())}"
    assert lines[-4:] == [
        "submitted job 1",
        "next: perceiver status --watch 'a run'",
        "      perceiver logs -f 'a run'",
        "      perceiver stop 'a run'",
    ]
    assert len(lines) == 4 + len(list(planned.sentences()))
    assert "not passed on from this shell: SBATCH_TIMELIMIT" in told.err
    assert submit.sweep(CONFIG, rates(shards, "1", "2", "3"), tmp_path / "all rates", ClusterConfig()) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-2:] == [
        "submitted 3 runs as the tasks of job 2, 3",
        "next: perceiver status --watch 'all rates'",
    ]
    assert told.err == "note: the profile decides; not passed on from this shell: SBATCH_TIMELIMIT\n"


def test_a_sweep_whose_runs_are_all_finished_submits_nothing(
    shards: Path, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (CONFIG, rates(shards, "1", "2"), tmp_path / "rates", ClusterConfig())
    for config, folder in submit.sweep_runs(*words[:3]):
        open_run(config, folder)
        complete_checkpoint(folder, config.train.steps)
    assert submit.sweep(*words) == 0
    assert "2 of 2 runs are finished" in capsys.readouterr().err
    assert not (slurm_commands / "count").exists()


def test_what_a_dry_run_shows_is_the_plan_above_the_script_and_the_settings_below_it(
    config: RunConfig, shards: Path, tmp_path: Path, slurm_commands: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    profile = ClusterConfig(nodes=2)
    small = replace(config, train=replace(config.train, micro_batch=8))
    assert submit.submit(small, tmp_path / "run", profile, dry_run=True) == 0
    told = capsys.readouterr()
    planned = plan.make(small, profile, RunFolder(tmp_path / "run"))
    lines = told.out.splitlines()
    sentences = [f"# {sentence}" for sentence in planned.sentences()]
    assert lines[: len(sentences) + 1] == [*sentences, "#!/bin/bash"]
    assert '#  "train_micro_batch_size_per_gpu": 8,' in lines
    assert '#  "gradient_accumulation_steps": 4,' in lines
    assert "not passed on from this shell" in told.err
    assert submit.sweep(CONFIG, rates(shards, "1", "2", "3"), tmp_path / "rates", profile, dry_run=True) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert "# rates/learning_rate=3" in lines[:20]
    assert lines.count("#!/bin/bash") == 2
    assert lines[0].startswith("# 2 ranks")
    assert "not passed on from this shell" in told.err
    assert (
        submit.sweep(CONFIG, rates(shards, "1", "2", "3"), tmp_path / "rates", profile, dry_run=True, as_json=True) == 0
    )
    assert json.loads(capsys.readouterr().out)["plan"]["world_size"] == 2


def test_a_run_is_resumed_on_another_cluster_and_with_other_limits(
    config: RunConfig, tmp_path: Path, slurm_commands: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    (tmp_path / "other.yaml").write_text(cluster.dump(ClusterConfig(nodes=4, minutes=30)))
    assert submit.resume(folder.path, str(tmp_path / "other.yaml"), {"nodes": 0, "minutes": 90}) == 0
    script = (slurm_commands / "1.sh").read_text().splitlines()
    assert {"#SBATCH --nodes=4", "#SBATCH --time=90"} <= set(script)
    assert cluster.load(str(folder.cluster_path)).minutes == 90
    with pytest.raises(ValueError, match="holds no run"):
        submit.resume(tmp_path / "nowhere", None, {})
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        submit.resume(folder.path, None, {"nodes": 3})


def test_a_run_in_the_queue_without_a_reason_is_refused_by_its_state_alone(
    config: RunConfig, tmp_path: Path, slurm_commands: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    submit.submit(config, folder.path, ClusterConfig(), dry_run=False)
    sent = submission.read(folder)
    assert sent is not None
    (slurm_commands / "squeue").write_text(f"#!/bin/sh\necho 'RUNNING|None|n1|{sent.job_name}|(null)'\n")
    with pytest.raises(ValueError, match=r"job 1 of this run is RUNNING; `perceiver stop .*/run` ends it after a save"):
        submission.refuse_if_queued(folder)
    (slurm_commands / "squeue").write_text(f"#!/bin/sh\necho 'COMPLETED|None|n1|{sent.job_name}|(null)'\n")
    submission.refuse_if_queued(folder)


def test_a_job_s_name_is_readable_and_no_other_s() -> None:
    folder = RunFolder(Path("a run: [1]-x_y.z"))
    names = {submission.job_name(folder) for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith("a_run___1_-x_y.z-") and len(name) == 25 for name in names)


def test_a_sentence_says_whether_a_stop_was_measured_and_how_long_it_takes(config: RunConfig, tmp_path: Path) -> None:
    planned = replace(plan.make(config, ClusterConfig(), RunFolder(tmp_path)), save_seconds=1.25)
    assert (
        list(planned.sentences())[-1] == "a stop takes a step and 1.25 s for its save (at 200 MB/s; not measured yet)"
    )
    assert list(replace(planned, is_measured=True).sentences())[-1] == "a stop takes 1.2 s (measured)"


def test_all_problems_of_a_plan_are_told_at_once(config: RunConfig, tmp_path: Path) -> None:
    gone = replace(config, data=replace(config.data, shards=str(tmp_path / "gone")))
    with pytest.raises(ValueError, match="cannot run like this") as caught:
        plan.make(gone, ClusterConfig(signal_seconds=1, memory_gib=1), RunFolder(tmp_path / "run"))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}/run cannot run like this:"
    assert len(lines) >= 2
    assert any("gone" in line for line in lines[1:])
    mixed = replace(config, data=replace(config.data, shards="", datasets={
        name: DatasetConfig(str(tmp_path / name)) for name in ("one", "two")}))  # fmt: skip
    with pytest.raises(ValueError, match="cannot run like this") as caught:
        plan.make(mixed, ClusterConfig(), RunFolder(tmp_path / "run"))
    assert {"one", "two"} <= set(re.findall("one|two", str(caught.value)))


@pytest.mark.parametrize(
    ("profile", "precision", "width", "device"),
    [
        (ClusterConfig(nodes=2), "fp32", 4, "cpu"),
        (ClusterConfig(nodes=2), "bf16", 2, "cpu"),
        (ClusterConfig(nodes=2, gpus_per_node=1), "fp32", 4, "cuda"),
        (ClusterConfig(nodes=2, gres="gpu:1"), "bf16", 2, "cuda"),
    ],
)
def test_activations_are_those_of_a_micro_batch_in_the_run_s_precision_on_the_profile_s_device(
    config: RunConfig, door: Door, profile: ClusterConfig, precision: str, width: int, device: str
) -> None:
    run = replace(config, train=replace(config.train, precision=precision, micro_batch=8))
    policies, asked = (
        door("launch.planning.plan.planned", run.model),
        door("launch.planning.plan.activation_bytes", 100),
    )
    # Half-precision copies of the weights are kept as well.
    copies = 2 * total(network_cost(config.model)).parameters if precision == "bf16" else 0
    assert plan.memory(run, profile, Share())[1] == 800 + copies
    assert (asked[0]["bytes_per_element"], asked[0]["device"]) == (width, device)
    assert (policies[0]["world_size"], policies[0]["device"]) == (2, device)


class Asked:
    """A scheduler that takes one run and refuses the next."""

    def __init__(self) -> None:
        self.avoided: list[str] = []
        self.looks = 0

    def submit(
        self, folders: Sequence[RunFolder], _: ClusterConfig, *, job_name: str, avoided: list[str]
    ) -> Iterator[tuple[RunFolder, str]]:
        self.avoided = avoided
        yield folders[0], job_name
        raise ValueError("full")

    def usable_nodes(self, *_: object) -> list[str]:
        self.looks += 1
        return []


def test_a_stop_is_put_back_where_no_job_was_taken_and_bad_nodes_of_all_runs_are_avoided_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [RunFolder(tmp_path / name) for name in ("taken", "without a stop", "stopped")]
    for folder in folders:
        folder.create()
    for folder in (folders[0], folders[2]):
        folder.stop_path.touch()
    scheduler = Asked()
    monkeypatch.setattr(submission, "SCHEDULERS", {"slurm": scheduler})
    with pytest.raises(ValueError, match=r"1 of 3 runs were submitted, up to .*/taken; then full; `perceiver resume"):
        submission.send(folders, ClusterConfig())
    assert [folder.stop_path.exists() for folder in folders] == [False, False, True]
    assert (scheduler.avoided, scheduler.looks) == ([], 0), "nodes are asked for only where one is bad"
    names = [f"n{number}" for number in range(16)]
    bad = {folders[0]: names[12:], folders[1]: names[:7], folders[2]: names[5:13]}
    monkeypatch.setattr(submission, "_avoided", lambda folder, _: bad[folder])
    monkeypatch.setattr(submission, "refuse_if_taken", lambda _: None)
    with pytest.raises(ValueError, match="1 of 3 runs were submitted"):
        submission.send(folders, ClusterConfig())
    assert scheduler.avoided == sorted(names)
