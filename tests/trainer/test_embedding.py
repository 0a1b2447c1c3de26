"""Contrastive pairs: the loss and its gradient are those of the global batch, however it is cut and spread."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from peak_memory import PeakMemory
from threads import ThreadWorld, on_ranks

from data_shards.loading.batch import Batch
from model.budget import flops
from model.budget.activation_memory import activation_bytes
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.image import ImageInput
from model.modalities.points import PointsInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.evaluation.evaluation import evaluate
from trainer.tasks.kinds import embedding
from trainer.tasks.objective import Objective, objective

ROWS = 8
PAIR = EmbeddingOutput(pair=("first", "second"), width=6)
GOAL = objective({"near": PAIR, "label": LabelOutput(num_classes=3, loss_weight=0.5)})


class Tower(nn.Module):
    """Reads whatever is shown; answers a vector and a class. In float64 to tell rounding from mistakes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.randn(2, 4, 6, generator=generator).double())
        self.calls: list[tuple[set[str], set[str]]] = []

    def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], *, outputs: set[str]) -> dict[str, Tensor]:
        shown = {name for name, length in lengths.items() if bool((length > 0).any())}
        self.calls.append((shown, set(outputs)))
        rows = [(arrays[name] * (lengths[name] > 0)[:, None]) @ weight for name, weight in self.parts()]
        answer = (rows[0] + rows[1]).tanh()
        return {name: {"near": answer, "label": answer[:, :3]}[name] for name in outputs}

    def parts(self) -> list[tuple[str, Tensor]]:
        return list(zip(("first", "second"), self.weights, strict=True))


def batch_of(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        arrays={name: torch.randn(ROWS, 4, generator=generator).double() for name in ("first", "second")},
        lengths={"first": torch.tensor([4, 4, 0, 4, 4, 4, 4, 4]), "second": torch.tensor([4, 4, 4, 4, 4, 0, 4, 4])},
        labels=torch.tensor([0, 1, 2, -1, 0, 1, 2, 0]),
        weights=torch.tensor([1.0, 0.5, 1, 2, 1, 1, 0, 1]),
        keys=tuple("abcdefgh"),
    )


def defined(network: Tower, batch: Batch) -> Tensor:
    """The loss by its definition: only samples that have both, and a weight, are asked and are candidates."""
    there = [0, 1, 3, 4, 7]
    first, second = ((batch.arrays[name] @ weight).tanh()[there] for name, weight in network.parts())
    weights = batch.weights[there].double()
    losses = torch.zeros(len(there), dtype=torch.float64)
    for row in range(len(there)):
        ways = [first[row] @ second.T, second[row] @ first.T]
        losses[row] = -sum(logits.log_softmax(dim=0)[row] for logits in ways) / 2  # type: ignore[arg-type]
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_loss_and_gradient_are_those_of_the_whole_global_batch(world: World, world_size: int, num_parts: int) -> None:
    goal = Objective({"near": GOAL.tasks["near"]}, {"near": 1.0})

    def rank(here: ThreadWorld) -> tuple[Tensor, Tensor]:
        network = Tower()
        share = batch_of().micro_batches(world_size)[here.rank]
        count = here.sum(goal.counts(share)["near"])
        total = torch.zeros(())
        parts = share.micro_batches(num_parts)
        for part, others in zip(parts, goal.others(network, parts, here), strict=True):  # type: ignore[arg-type]
            loss = goal.sums(network, part, others=others)["near"] / count
            loss.backward()
            total = total + loss.detach()
        assert network.weights.grad is not None
        return here.sum(total), here.sum(network.weights.grad)

    network = Tower()
    expected = defined(network, batch_of())
    expected.backward()
    for loss, gradient in on_ranks(world_size, rank) if world_size > 1 else [rank(world)]:  # type: ignore[arg-type]
        # The task computes in float32.
        torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient, network.weights.grad, rtol=1e-5, atol=1e-6)


def test_each_input_is_read_alone_and_other_tasks_are_not_answered_again() -> None:
    network, batch = Tower(), batch_of()
    sums = GOAL.sums(network, batch)
    assert sums.keys() == {"near", "label"}
    assert network.calls == [
        ({"first", "second"}, {"label"}),
        ({"first"}, {"near"}),
        ({"second"}, {"near"}),
    ]
    assert float(GOAL.counts(batch)["near"]) == 5.5
    # Without others the samples of the batch are all there are.
    torch.testing.assert_close((sums["near"] / 5.5).double(), defined(network, batch).detach(), rtol=1e-6, atol=1e-6)


def test_recall_counts_the_samples_whose_other_input_is_the_nearest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    directions = torch.eye(6)[:5].repeat_interleave(1, dim=0)
    first, second = directions.clone(), directions.clone()
    second[0], second[3] = directions[1], directions[4]

    class Says(nn.Module):
        def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
            return {"near": arrays["first"] if bool((lengths["first"] > 0).any()) else arrays["second"]}

    batch = Batch(
        {"first": first, "second": second},
        {name: torch.full((5,), 6) for name in ("first", "second")},
        torch.full((5,), -1),
        torch.ones(5),
        tuple("abcde"),
    )
    goal = objective({"near": PAIR})
    found = evaluate(Says(), goal, [batch], world, ("first", "second"))
    # Found are 2 both ways, 1 and 4 one way and in a tie the other; 0 and 3 are not.
    assert found.flat()["near/recall_at_1"] == pytest.approx((2 + 1 + 1) / 10)
    assert found.flat()["near/recall_at_5"] == 1.0
    assert found.num_judged == {"near": 5}
    # Nearer than the others to whom it belongs: a sample without its second input, and one that does not count.
    more = {name: torch.cat([array, 2 * directions[1:3]]) for name, array in batch.arrays.items()}
    uncounted = replace(
        batch,
        arrays=more,
        lengths={"first": torch.full((7,), 6), "second": torch.tensor([6, 6, 6, 6, 6, 0, 6])},
        labels=torch.full((7,), -1),
        weights=torch.tensor([1.0, 1, 1, 1, 1, 1, 0]),
        keys=tuple("abcdefg"),
    )
    apart = evaluate(Says(), goal, [uncounted], world, ("first", "second"))
    assert (apart.flat(), apart.num_judged) == (found.flat(), found.num_judged)
    # The table of similarities in pieces.
    monkeypatch.setattr(embedding, "_ROWS", 2)
    assert evaluate(Says(), goal, [batch], world, ("first", "second")).flat() == found.flat()
    blind = replace(batch, arrays=dict.fromkeys(("first", "second"), torch.ones(5, 6)))
    assert evaluate(Says(), goal, [blind], world, ("first", "second")).flat()["near/recall_at_1"] == 0.0

    # Without a single pair nothing was found, and nothing was missed.
    alone = replace(batch, lengths={"first": torch.full((5,), 6), "second": torch.zeros(5, dtype=torch.int64)})
    without = evaluate(Says(), goal, [alone], world, ("first", "second"))
    assert (without.flat(), without.num_judged) == ({}, {"near": 0})

    # In two batches the same five are looked for among the same five.
    halves = [replace(batch, keys=("", *batch.keys[1:])), replace(batch, keys=(batch.keys[0], *[""] * 4))]
    assert evaluate(Says(), goal, halves, world, ("first", "second")).flat() == found.flat()

    def rank(here: ThreadWorld) -> Any:  # noqa: ANN401
        parts = [replace(batch, keys=("", *batch.keys[1:])), replace(batch, keys=(batch.keys[0], *[""] * 4))]
        return evaluate(Says(), goal, [parts[here.rank]], here, ("first", "second"))

    assert all(apart.flat() == found.flat() for apart in on_ranks(2, rank))


def test_micro_batches_change_nothing_of_a_step_and_a_perceiver_learns(world: World) -> None:
    audio = AudioInput(num_samples=8, patch=4, positions=PositionsConfig(num_bands=2))
    inputs = {"audio": audio, "points": PointsInput(num_points=3, num_bands=2, max_frequency=4.0)}
    sizes: dict[str, Any] = {"num_latents": 2, "latent_width": 16, "num_cross_attends": 1, "num_blocks": 0}
    near = EmbeddingOutput(pair=("audio", "points"), width=6)
    config = PerceiverConfig(inputs=inputs, outputs={"near": near, "label": LabelOutput(num_classes=3)}, **sizes)
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        arrays={
            "audio": torch.randn(ROWS, 8, generator=generator),
            "points": torch.rand(ROWS, 3, 3, generator=generator),
        },
        lengths={"audio": torch.full((ROWS,), 8), "points": torch.full((ROWS,), 3)},
        labels=torch.arange(ROWS) % 3,
        weights=torch.ones(ROWS),
        keys=tuple("abcdefgh"),
    )
    losses = []
    for micro_batch in (ROWS, 2):
        train = TrainConfig(steps=6, global_batch=ROWS, micro_batch=micro_batch)
        optimizer = OptimizerConfig(learning_rate=0.02, warmup_steps=1)
        network = Perceiver(config, seed=0)
        engine = Engine(network, objective(config.answers()), optimizer=optimizer, train=train, world=world)
        losses.append([engine.step(batch).task_losses["near"] for _ in range(6)])
        engine.close()
    # Sums of float32 in another order, after up to six steps.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.8 * losses[0][0]
    [problem] = PerceiverConfig(inputs=inputs, outputs={"near": replace(near, pair=("audio", "x"))}, **sizes).problems()
    assert problem[0] == "outputs.near.pair"


def planned(**outputs: Output) -> PerceiverConfig:
    bands = PositionsConfig(num_bands=16)
    return PerceiverConfig(
        inputs={
            "first": ImageInput(height=24, width=16, positions=bands),
            "second": AudioInput(num_samples=256, patch=4, positions=bands),
        },
        outputs=outputs,
        num_latents=64,
        latent_width=64,
        num_cross_attends=2,
        num_blocks=2,
        layers_per_block=1,
        self_attend=AttentionConfig(num_heads=4),
        cross_attend_form="plain",
    )


LABEL = LabelOutput(num_classes=5, pooling="query")


@pytest.mark.parametrize("outputs", [{"near": PAIR}, {"near": replace(PAIR, pooling="query"), "label": LABEL}])
@pytest.mark.parametrize("policy", ["none", "blocks"])
def test_a_plan_has_the_operations_and_the_memory_of_all_passes(
    outputs: dict[str, Output], policy: ActivationCheckpointing
) -> None:
    config = replace(planned(**outputs), activation_checkpointing=policy)
    assert list(config.problems()) == []
    network, goal = Perceiver(config, seed=0), objective(config.answers())
    batch = Batch(
        arrays={"first": torch.zeros(4, 24, 16, 3, dtype=torch.uint8), "second": torch.zeros(4, 256)},
        lengths={"first": torch.full((4,), 24), "second": torch.full((4,), 256)},
        labels=torch.arange(4),
        weights=torch.ones(4),
        keys=("a", "b", "c", "d"),
    )
    # The counter cannot follow what is computed without gradients from weights that have some.
    network.requires_grad_(requires_grad=False)
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counted:
            others = goal.others(network, [batch], World(0, 1, 0, torch.device("cpu")))
        assert counted.get_total_flops() == pytest.approx(4 * flops.gathering(config), rel=0.01)
        with FlopCounterMode(display=False) as counted:
            goal.sums(network, batch, others=others[0])
        assert counted.get_total_flops() == pytest.approx(4 * flops.total(flops.network_cost(config)).flops, rel=0.01)
    for parameter in network.requires_grad_().parameters():
        parameter.grad = torch.zeros_like(parameter)
    with PeakMemory() as memory:
        others = goal.others(network, [batch], World(0, 1, 0, torch.device("cpu")))
        sums = goal.sums(network, batch, others=others[0])
        goal.loss(sums, goal.counts(batch)).backward()
    assert memory.peak == pytest.approx(4 * activation_bytes(config), rel=0.1)
