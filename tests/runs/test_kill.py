"""A run that was killed resumes as if nothing had happened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.run import load

MakeRun = Callable[..., Any]
# Beside dropout, stochastic depth, latents of several sizes and the moving average, which the configuration of all runs
# here has. The latents are trained from the step after the first checkpoint that a kill may leave.
FINE_TUNED = """
optimizer:
  freeze: ["encoder.*.norm_mlp.*", "encoder.latents.*=11"]
  rate_factors: ["decoder.*=2"]
  decay_factors: ["decoder.*=0.5"]
  layer_decay: 0.8
  weight_decay: 0.1
"""


@pytest.fixture
def fine_tuned(make_run: MakeRun) -> Path:
    """Return the configuration of a run that has everything at once."""
    config = make_run("unused").config
    path: Path = config.with_name("fine_tuned.yaml")
    path.write_text(config.read_text() + FINE_TUNED)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2])
def test_a_killed_run_resumes_with_the_same_losses_to_the_last_bit(
    make_run: MakeRun, fine_tuned: Path, num_processes: int
) -> None:
    undisturbed, killed = (make_run(name, num_processes, config=fine_tuned) for name in ("undisturbed", "killed"))
    assert [status for status, _, _ in undisturbed.finish()] == [0] * num_processes

    # The last rank alone is killed: where there are two, the other loses its peer in the middle of a step.
    killed.kill_after_checkpoint(step=10, rank=-1)
    assert "step_00000040" not in {path.name for path in killed.checkpoints()}

    assert [status for status, _, _ in killed.finish()] == [0] * num_processes
    assert sorted(killed.losses()) == list(range(1, 41))
    assert killed.losses() == undisturbed.losses()
    weights = undisturbed.weights()
    assert {name.partition("-")[0] for name in weights} == {"weight", "exp_avg", "exp_avg_sq", "ema"}
    assert killed.weights() == weights


@pytest.mark.slow
def test_a_run_that_is_resumed_watched_and_fed_in_another_way_ends_with_the_same_weights(
    make_run: MakeRun,
) -> None:
    undisturbed, run = make_run("undisturbed"), make_run("run")
    assert [status for status, _, _ in undisturbed.finish("train.steps=12")] == [0]
    changes = ("data.num_threads=2", "data.prefetch_batches=1", "train.log_every_steps=3")
    # Ended by its own clock, at whatever step that is.
    (first, _, told) = run.finish("train.steps=12", "train.time_limit_minutes=0.00001")[0]
    assert first == 85, told
    (second, _, told) = run.finish("train.steps=12", *changes)[0]
    assert second == 0, told
    assert run.weights() == undisturbed.weights()
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    events = [row["message"] for row in rows if row["kind"] == "event"]
    assert any("train.log_every_steps: 1 -> 3" in message for message in events)
    assert load(run.folder / "config.yaml").data.num_threads == 2
