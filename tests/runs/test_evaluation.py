"""What a run evaluates, through the real command: which split, on how many ranks, and what it says about it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm_start import finished

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row

pytestmark = pytest.mark.slow
MakeRun = Callable[..., Any]
CONFIG = """
data: {inputs: {text: {modality: text, num_bytes: 12}}, lanes: 4, window: 16}
model:
  inputs: {text: {max_tokens: 12, embedding_width: 16}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 4, global_batch: 8, log_every_steps: 1, evaluate_every_steps: 2}
"""


@pytest.fixture
def run(tmp_path: Path, make_run: MakeRun) -> Callable[..., Any]:
    """Train on shards with so many samples in each split; return the finished run."""

    def train(*overrides: str, num_processes: int = 1, **splits: int) -> Any:  # noqa: ANN401
        names = [name for name, count in splits.items() for _ in range(count)]
        rows = [
            Row(line, (Literal(b"abc"[line % 3 :] * 3, "txt"),), label=line % 3, split=name)
            for line, name in enumerate(names)
        ]
        shards, config = tmp_path / "shards", tmp_path / "run.yaml"
        if not shards.exists():
            build_table(rows, shards, label_names="abc", samples_per_shard=16)
        config.write_text(CONFIG)
        run = make_run(f"run_on_{num_processes}", num_processes, config=config, shards=shards)
        for status, _, errors in run.finish(*overrides):
            assert status == 0, errors
        return run

    return train


def records(run: Any, kind: str) -> list[dict[str, Any]]:  # noqa: ANN401
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def told_at_the_start(run: Any) -> list[str]:  # noqa: ANN401
    return [record["message"] for record in records(run, "event") if record["step"] == 0]


def evaluated(run: Any, *options: str) -> dict[str, Any]:  # noqa: ANN401
    result = finished([sys.executable, "-m", "launch", "eval", str(run.folder), "--json", *options])
    result.check_returncode()
    return dict(json.loads(result.stdout.splitlines()[-1]))


def test_a_validation_split_is_evaluated_and_eval_takes_any_other(run: Callable[..., Any]) -> None:
    trained = run("ema.decay=0.5", "ema.evaluate=true", train=48, val=21, unseen=6)
    told = "split 'val' is evaluated every 2 steps and at the end, with the moving average of the weights"
    assert told in told_at_the_start(trained)
    assert [(line["step"], line["samples"]) for line in records(trained, "evaluation")] == [(2, 21), (4, 21)]
    found = evaluated(trained)
    assert (found["split"], found["samples"], found["weights"]) == ("val", 21, "ema")
    assert found["metrics"]["label"]["accuracy"]["all"] == records(trained, "evaluation")[-1]["label/accuracy"]
    found = evaluated(trained, "--split", "unseen", "--weights", "trained")
    assert (found["split"], found["samples"], found["weights"]) == ("unseen", 6, "trained")


def test_a_run_without_such_a_split_says_so_and_trains(run: Callable[..., Any]) -> None:
    trained = run(train=48)
    assert any(line.startswith("nothing is evaluated: ") for line in told_at_the_start(trained))
    assert records(trained, "evaluation") == []


def test_two_ranks_evaluate_every_sample_once_with_the_scores_of_one(run: Callable[..., Any]) -> None:
    # 21 samples in batches of 8: the last batch is real on one rank and padding on the other.
    alone, shared = (records(run(num_processes=world_size, train=48, test=21), "evaluation") for world_size in (1, 2))
    assert [line["samples"] for line in shared] == [21, 21]
    for one, two in zip(alone, shared, strict=True):
        assert two["label/accuracy"] == pytest.approx(one["label/accuracy"], abs=1e-6)


def test_a_run_that_diverges_ends_on_all_ranks_with_one_sentence(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run("run", 2)
    (first, _, told), (second, _, silent) = run.finish("optimizer.learning_rate=1e3", "health.max_rollbacks=1")
    assert (first, second) == (2, 2)
    assert told.startswith("perceiver: step ")
    assert told.count("\n") == 1
    assert "lower optimizer.learning_rate" in told
    assert silent == ""
