"""Optical flow is learned through the engine and judged by its end-point error, also on frames that need tiles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.flow import FlowInput
from model.outputs.flow import FlowOutput
from model.perceiver import Perceiver
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.evaluation.evaluation import Evaluation, evaluate
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import RunState
from trainer.sinks.writers import JsonLines
from trainer.tasks.objective import objective

SIDE, PAIRS = 8, 16
FLOW = FlowInput(height=SIDE, width=SIDE, project_to=12, positions=PositionsConfig(num_bands=2))
STEM = replace(FLOW, conv_stem=True, project_to=0)
OUTPUTS = {"flow": FlowOutput(rescale=1.0)}
GOAL = objective({"flow": FlowOutput(target="flow", rescale=1.0)})
TRAIN = TrainConfig(steps=40, global_batch=PAIRS, log_every_steps=10, evaluate_every_steps=40)


def pairs(index: int, height: int = SIDE, width: int = SIDE) -> Batch:
    """Pairs of ramps that move together: what a pixel's brightness loses is how far it has moved.

    Ramps begin anew every four pixels, as do tiles of larger frames: all tiles look like frames of training.
    """
    generator = torch.Generator().manual_seed(index)
    motion = torch.rand(PAIRS, 1, 1, 2, generator=generator) * 4 - 2
    rows, columns = torch.meshgrid(torch.arange(height) % 4 / 4, torch.arange(width) % 4 / 4, indexing="ij")
    before = torch.stack([columns, rows], dim=-1).expand(PAIRS, -1, -1, -1)
    frames = torch.stack([before, before - motion / 4], dim=1)
    texture = torch.rand(PAIRS, 2, height, width, 1, generator=generator)
    return Batch(
        arrays={"flow": torch.cat([frames, texture], dim=-1)},
        lengths={"flow": torch.full((PAIRS,), 2)},
        labels=torch.full((PAIRS,), -1),
        weights=torch.ones(PAIRS),
        keys=tuple(f"{index}-{row}" for row in range(PAIRS)),
        targets={"flow": motion.expand(-1, height, width, -1)},
    )


def network(flow: FlowInput) -> Perceiver:
    return Perceiver(
        PerceiverConfig(
            inputs={"flow": flow},
            outputs=OUTPUTS,
            decoder=DecoderConfig(output_width=16),
            num_latents=8,
            latent_width=32,
            num_cross_attends=1,
            num_blocks=1,
            layers_per_block=1,
            self_attend=AttentionConfig(num_heads=4),
        ),
        seed=0,
    )


def error(found: Evaluation) -> float:
    return found.flat()["flow/end_point_error"]


@pytest.mark.parametrize(
    "flow", [pytest.param(FLOW, id="pixels"), pytest.param(STEM, id="stem", marks=pytest.mark.slow)]
)
def test_flow_is_learned_through_the_engine_and_judged_by_tiles(tmp_path: Path, world: World, flow: FlowInput) -> None:
    built = network(flow)
    engine = Engine(built, GOAL, optimizer=OptimizerConfig(learning_rate=1e-2), train=TRAIN, world=world)
    held_out = [pairs(1000)]
    large = [pairs(1001, height=12, width=16)]

    def judged(batches: list[Batch]) -> Evaluation:
        return evaluate(engine.network, GOAL, batches, world, ("flow",))

    before = judged(held_out)
    # A new network says that nothing moves: its error is the length of the motion.
    lengths = held_out[0].targets["flow"].norm(dim=-1)
    assert error(before) == pytest.approx(lengths.mean().item(), rel=1e-5)
    store, sink = Store(tmp_path / "checkpoints", CheckpointConfig(), world), JsonLines(tmp_path / "metrics.jsonl", 0)
    outcome, state = fit(
        TRAIN,
        engine=engine,
        batches=pairs,
        state=RunState(),
        store=store,
        sinks=[sink],
        stop=StopRequest(),
        world=world,
        evaluate=lambda: judged(held_out),
    )
    sink.close()
    assert (outcome, state.step) == ("finished", TRAIN.steps)
    after, of_large = judged(held_out), judged(large)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["flow/end_point_error"] for line in lines if line["kind"] == "evaluation"] == [error(after)]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0] / 2
    assert error(after) < error(before) / 2
    # Of the best checkpoint less error is the higher score.
    assert after.best_by > before.best_by
    # Six tiles.
    assert of_large.samples == PAIRS
    assert error(of_large) < error(before) / 2
    store.close()
    engine.close()


class Still(torch.nn.Module):
    """Says that nothing moves."""

    def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], *, chunk: int = 0) -> dict[str, Tensor]:
        return {"flow": torch.zeros(*arrays["flow"].shape[:1], *arrays["flow"].shape[2:4], 2)}


def test_the_error_is_the_mean_over_real_pairs(world: World) -> None:
    batch = pairs(0)
    batch = replace(batch, keys=(*batch.keys[:-4], "", "", "", ""))
    found = evaluate(Still(), GOAL, [batch, pairs(1)], world, ("flow",))
    lengths = torch.cat([pairs(0).targets["flow"][:-4], pairs(1).targets["flow"]])[:, 0, 0].norm(dim=-1)
    assert found.samples == 2 * PAIRS - 4
    assert found.flat() == {"flow/end_point_error": pytest.approx(lengths.mean().item(), rel=1e-5)}


def test_the_loss_is_the_error_however_the_batch_is_cut() -> None:
    batch, answer = pairs(0), torch.randn(PAIRS, SIDE, SIDE, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(PAIRS, dtype=torch.float32)
    # One without frames, and one with less of them.
    lengths = torch.tensor([2, 0, 1, *[2] * (PAIRS - 3)])
    batch = replace(batch, weights=weights, lengths={"flow": lengths})
    weights = weights * (lengths > 0)
    expected = ((answer - batch.targets["flow"]).norm(dim=-1).mean(dim=(1, 2)) * weights).sum() / weights.sum()
    task = GOAL.tasks["flow"]
    for num_parts in (1, 4):
        parts = zip(answer.chunk(num_parts), batch.micro_batches(num_parts), strict=True)
        loss = sum(task.sum(said, part) for said, part in parts) / task.count(batch)
        # Sums of a few thousand float32 terms in another order.
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
