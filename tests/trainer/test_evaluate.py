"""An evaluation judges the network as it is used, over all ranks, and leaves it as it was."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks
from tiny import CLASSES, Network, whole_batch

from data_shards.loading.batch import Batch
from model.outputs.flow import FlowOutput
from model.outputs.label import LabelsOutput
from trainer.distributed.world import World
from trainer.evaluation.evaluation import evaluate
from trainer.evaluation.inference import predictions
from trainer.tasks.objective import Objective, objective

SEVERAL = objective({"label": LabelsOutput(num_classes=5)})


class Careful(nn.Module):
    """Answers wrongly while it trains, and notes whether a gradient was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.dropout = Network(seed=0), nn.Dropout(0.9)
        self.gradients: list[bool] = []

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        answers = self.network(inputs, lengths)["label"]
        self.gradients.append(answers.requires_grad)
        return {"label": self.dropout(answers)}


@pytest.mark.parametrize("is_training", [True, False])
def test_a_network_is_judged_in_its_evaluation_mode_without_gradients_and_left_as_it_was(
    world: World, is_training: bool
) -> None:
    network = Careful().train(is_training)
    batch = whole_batch(0)
    right = network.network(batch.arrays, batch.lengths)["label"].argmax(dim=-1)
    labelled = replace(batch, labels=right)
    assert evaluate(network, CLASSES, [labelled], world, ("points",)).flat()["label/accuracy"] == 1.0
    assert torch.equal(predictions(network, batch, "label"), right)
    assert network.training == network.dropout.training == is_training
    assert network.gradients == [False, False]


class Broken(nn.Module):
    """Answers NaN to some samples, as a network does whose weights or sums have overflowed."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__()
        self.network, self.rows = Network(seed=0), rows

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        answers = self.network(inputs, lengths)["label"].clone()
        answers[self.rows, 0] = torch.nan
        return {"label": answers}


def test_answers_that_are_nan_are_counted_and_have_no_score(world: World) -> None:
    batch = whole_batch(0)
    found = evaluate(Broken([3, 5]), CLASSES, [batch, batch], world, ("points",))
    assert dict(found.num_nan) == {"label": 4}
    assert all(math.isnan(value.value) for value in found.values)
    assert "label: the network answers NaN for 4 samples" in found.summary()
    assert found.as_json()["nan"] == {"label": 4}
    assert evaluate(Broken([]), CLASSES, [batch], world, ("points",)).faults() == []
    # A slot that only fills the batch is no sample.
    padded = replace(batch, keys=("", *batch.keys[1:]))
    assert evaluate(Broken([0]), CLASSES, [padded], world, ("points",)).faults() == []


def several(index: int) -> Batch:
    batch = whole_batch(index)
    targets = torch.rand(16, 5, generator=torch.Generator().manual_seed(index)) > 0.6
    return replace(batch, targets={"label": targets.float()})


@pytest.mark.parametrize(("goal", "batch_of"), [(CLASSES, whole_batch), (SEVERAL, several)], ids=["one", "several"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_together_find_what_one_finds(world: World, goal: Objective, batch_of: Any, world_size: int) -> None:  # noqa: ANN401
    batches = [batch_of(0), batch_of(1)]
    # The last batch is half padding: the last ranks have no real sample of it.
    batches[1] = replace(batches[1], keys=(*batches[1].keys[:7], *[""] * 9))
    expected = evaluate(Network(seed=0), goal, batches, world, ("points",))

    def rank(here: ThreadWorld) -> Any:  # noqa: ANN401
        parts = [batch.micro_batches(world_size)[here.rank] for batch in batches]
        return evaluate(Network(seed=0), goal, parts, here, ("points",))

    for found in on_ranks(world_size, rank):
        assert found.samples == expected.samples == (23 if goal is SEVERAL else found.samples)
        assert found.flat() == pytest.approx(expected.flat(), abs=1e-6)


def test_a_pair_that_a_sample_lacks_is_not_judged(world: World) -> None:
    class Still(nn.Module):
        def forward(
            self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], *, chunk: int = 0
        ) -> dict[str, Tensor]:
            return {"motion": torch.zeros(*arrays["flow"].shape[:1], 4, 4, 2)}

    motion = torch.tensor([3.0, 4.0]).expand(3, 4, 4, 2).clone()
    motion[1] = 100.0
    batch = Batch(
        {"flow": torch.zeros(3, 2, 4, 4, 3)},
        {"flow": torch.tensor([1, 0, 2])},
        torch.full((3,), -1),
        torch.ones(3),
        ("a", "b", "c"),
        targets={"flow": motion},
    )
    found = evaluate(Still(), objective({"motion": FlowOutput(target="flow")}), [batch], world, ("flow",))
    assert found.flat() == {"motion/end_point_error": 5.0}
    assert (found.samples, found.summary()) == (2, "motion end point error 5.00 px")
    # Less error is better.
    assert found.best_by == -5.0


def test_answers_to_the_clips_of_a_sample_are_averaged(world: World) -> None:
    network = Network(seed=0)
    clips = [whole_batch(index) for index in (0, 1)]
    # The same samples, of which another part is read.
    second = replace(clips[1], labels=clips[0].labels, weights=clips[0].weights, keys=clips[0].keys)
    logits = torch.stack([network(batch.arrays, batch.lengths)["label"] for batch in clips]).mean(dim=0)
    known = clips[0].labels >= 0
    expected = (logits.argmax(dim=-1) == clips[0].labels)[known].double().mean().item()
    found = evaluate(network, CLASSES, [clips[0], second], world, ("points",), num_clips=2)
    assert found.samples == int(known.sum())
    assert found.flat()["label/accuracy"] == pytest.approx(expected)
