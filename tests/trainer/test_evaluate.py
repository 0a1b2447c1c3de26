"""An evaluation judges the network as it is used, over all ranks, and leaves it as it was."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks
from tiny import CLASSES, Network, whole_batch

from data_shards.files.plugin_files import PluginError
from data_shards.loading.batch import Batch
from data_shards.loading.cuts import Cuts
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.label import LabelsOutput
from trainer.distributed.world import World
from trainer.evaluation.evaluation import ALL, Evaluation, Value, evaluate
from trainer.evaluation.inference import averaged, predictions
from trainer.tasks.kinds.label import LabelTask
from trainer.tasks.metric import Measurement, Metric, Result
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


class OnDevice:
    """A world of one whose device is PyTorch's "meta": it has no numbers, and meets none that are on the host."""

    device = torch.device("meta")

    def sum(self, counts: Tensor) -> Tensor:
        assert counts.device == self.device
        return torch.zeros(counts.shape, dtype=counts.dtype)


class Answers(nn.Module):
    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"label": torch.empty(len(inputs["points"]), 5, device=OnDevice.device)}


class Nothing(Measurement):
    def add(self, answer: Tensor, batch: Batch, judged: Tensor) -> None:
        assert answer.device == judged.device == batch.labels.device == OnDevice.device

    def result(self, world: World) -> Result:
        return Result(dict.fromkeys(("accuracy", "top_5_accuracy", "f1"), 0.5), 1)


def test_what_an_evaluation_counts_beside_the_answers_is_counted_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LabelTask, "measurement", lambda _: Nothing())
    found = evaluate(Answers(), CLASSES, [whole_batch(0)], cast("World", OnDevice()), ("points",))
    assert found.flat()["label/accuracy"] == 0.5


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


def test_an_evaluation_is_told_as_a_line_as_numbers_and_as_json() -> None:
    accuracy, error = Metric("top_5_accuracy", "%"), Metric("error", "px", higher_is_better=False)
    values = (
        Value("digit", accuracy, ALL, 0.5),
        Value("digit", accuracy, "photo", 0.25),
        Value("digit", error, ALL, 2.0),
        Value("motion", error, ALL, math.nan),
    )
    found = Evaluation(
        7,
        values,
        {"digit": 7, "motion": 3},
        {"digit": {"accuracy_of_class": [1.0, None]}, "motion": {}},
        num_nan={"motion": 1},
        cuts=Cuts({"photo": (2, 7), "sound": (0, 7)}),
    )
    assert found.flat() == {"digit/top_5_accuracy": 0.5, "digit/top_5_accuracy/photo": 0.25, "digit/error": 2.0}
    assert found.summary() == (
        "digit top 5 accuracy 50.00%, motion error not measured, digit of photo alone 25.00%, "
        "motion: the network answers NaN for 1 sample"
    )
    assert found.as_json() == {
        "samples": 7,
        "metrics": {
            "digit": {"top_5_accuracy": {"all": 0.5, "photo": 0.25}, "error": {"all": 2.0}},
            "motion": {"error": {"all": None}},
        },
        "judged": {"digit": 7, "motion": 3},
        "tables": {"digit": {"accuracy_of_class": [1.0, None]}},
        "nan": {"motion": 1},
        "cut": {"photo": 2},
    }
    assert "nan" not in replace(found, num_nan={}).as_json()


@pytest.mark.parametrize("world_size", [1, 2])
def test_samples_of_which_a_part_is_read_are_counted_over_all_ranks_and_once_for_all_clips(
    world: World, world_size: int
) -> None:
    def rank(here: Any) -> Evaluation:  # noqa: ANN401
        batch = replace(whole_batch(here.rank), num_cut={"points": 3})
        batch.lengths["points"][:4] = 0
        clips = [batch, replace(batch, num_cut={"points": 5})]
        return evaluate(Network(seed=0), CLASSES, clips * 2, here, ("points",), num_clips=2)

    for found in on_ranks(world_size, rank) if world_size > 1 else [rank(world)]:
        assert found.cuts == Cuts({"points": (2 * 3 * world_size, 2 * 12 * world_size)})


def test_a_vector_of_either_input_that_is_nan_makes_its_sample_one_of_those_that_are(world: World) -> None:
    class Says(nn.Module):
        def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
            return {"near": arrays["first"] if bool((lengths["first"] > 0).any()) else arrays["second"]}

    first, second = torch.eye(3), torch.eye(3)
    second[1, 2] = torch.nan
    batch = Batch(
        {"first": first, "second": second},
        {name: torch.full((3,), 3) for name in ("first", "second")},
        torch.full((3,), -1),
        torch.ones(3),
        ("a", "b", "c"),
    )
    goal = objective({"near": EmbeddingOutput(pair=("first", "second"), width=3)})
    found = evaluate(Says(), goal, [batch], world, ("first", "second"))
    assert (dict(found.num_nan), found.flat(), found.tables) == ({"near": 1}, {}, {"near": {}})


def test_what_a_plug_ins_measurement_lacks_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(result: object) -> str:
        monkeypatch.setattr("trainer.tasks.kinds.label.Confusion.result", lambda *_: result)
        with pytest.raises(PluginError) as refused:
            evaluate(Network(seed=0), CLASSES, [whole_batch(0)], world, ("points",))
        return str(refused.value)

    monkeypatch.setattr("trainer.evaluation.evaluation.is_of_plugin", lambda _: True)
    expected = "expected a Result with a number for each of accuracy, f1"
    assert f"Confusion.result returned int, {expected}" in says(3)
    assert f"Confusion.result returned {{'accuracy': 0.5}}, {expected}" in says(Result({"accuracy": 0.5}, 3))
    assert f"returned {{'accuracy': 0.5, 'f1': 'x'}}, {expected}" in says(Result({"accuracy": 0.5, "f1": "x"}, 3))  # type: ignore[dict-item]
    whole = Result({"accuracy": 0.5, "f1": 0.25}, 3)
    monkeypatch.setattr("trainer.tasks.kinds.label.Confusion.result", lambda *_: whole)
    found = evaluate(Network(seed=0), CLASSES, [whole_batch(0)], world, ("points",))
    assert found.flat() == {"label/accuracy": 0.5, "label/f1": 0.25}


def test_the_mean_of_clips_is_taken_in_full_precision_and_one_clip_is_as_it_is() -> None:
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    one = {"a": half}
    assert averaged([one]) is one
    found = averaged([one, {"a": half + 1}])["a"]
    assert (found.dtype, found.tolist()) == (torch.float32, [1.5, 2.5])
