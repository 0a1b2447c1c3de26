"""Every task is judged by its own measure, over real samples, as the definition says."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput
from trainer.distributed.world import World
from trainer.evaluation.evaluation import ALL, Evaluation, Value, evaluate, keys
from trainer.evaluation.inference import CHUNK, reconstructions
from trainer.tasks.metric import Metric
from trainer.tasks.objective import objective

VIDEO = GridOutput(target="video", shape=(2, 3, 4), num_channels=3, value_range=1.0)
ROWS = 6


class Fixed(nn.Module):
    """Gives fixed answers; a grid's cells in the order in which they are asked."""

    def __init__(self, answers: dict[str, Tensor]) -> None:
        super().__init__()
        self.answers = answers

    def forward(
        self,
        arrays: dict[str, Tensor],
        lengths: dict[str, Tensor],
        *,
        points: dict[str, Tensor] | None = None,
        chunk: int = 0,
    ) -> dict[str, Tensor]:
        if points is None:
            return self.answers
        return self.answers | {"video": self.answers["video"].flatten(1, 3)[:, points["video"]]}


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    return Batch(
        arrays={"video": torch.randint(0, 256, (ROWS, 2, 3, 4, 3), dtype=torch.uint8)},
        lengths={"video": torch.tensor([2, 2, 0, 1, 2, 2])},
        labels=torch.full((ROWS,), -1),
        weights=torch.ones(ROWS),
        keys=("a", "b", "c", "d", "e", ""),
        targets={
            "label": torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]]),
            "text": torch.tensor([[70, 0], [0, 71], [72, 73], [0, 0], [70, 0], [70, 70]], dtype=torch.int16),
        },
    )


def judged(outputs: dict[str, Output], answers: dict[str, Tensor], batch: Batch, world: World) -> Evaluation:
    return evaluate(Fixed(answers), objective(outputs), [batch, batch], world, ("video",))


@pytest.mark.parametrize("train_queries", [0, 5])
def test_the_ratio_is_the_mean_over_the_samples_that_have_the_modality(
    batch: Batch, world: World, train_queries: int
) -> None:
    grid = replace(VIDEO, train_queries=train_queries)
    errors = torch.tensor([0.1, 0.01, 0.5, 0.1, 0.1, 0.5])  # 20, 40, absent, 20, 20 dB, padding
    drawn = batch.arrays["video"] / 255 + errors.view(-1, 1, 1, 1, 1)
    result = judged({"video": grid}, {"video": drawn}, batch, world)
    assert result.samples == 8
    error = math.sqrt((3 * 0.1**2 + 0.01**2) / 4)
    assert result.flat() == pytest.approx({"video/psnr": 25.0, "video/root_mean_squared_error": error}, rel=1e-4)
    goal = objective({"video": grid})
    target, again = reconstructions(Fixed({"video": drawn}), goal, batch)["video"]
    torch.testing.assert_close(target, batch.arrays["video"] / 255)
    torch.testing.assert_close(again, drawn)


def test_a_picture_is_drawn_again_in_chunks_however_large_it_is(batch: Batch) -> None:
    asked: list[object] = []

    class Drawing(Fixed):
        def forward(self, *given: Any, **asks: Any) -> dict[str, Tensor]:  # noqa: ANN401  # whatever is asked
            asked.append(asks.get("chunk"))
            return super().forward(*given, **asks)

    drawing = Drawing({"video": batch.arrays["video"] / 255})
    reconstructions(drawing, objective({"video": VIDEO}), batch)
    assert asked == [CHUNK]


def test_precision_is_that_of_all_real_samples_together(batch: Batch, world: World) -> None:
    logits = torch.tensor([[3.0, 0], [0, 3], [1, 1], [2, 2], [0, 0], [9, 9]])
    result = judged({"label": LabelsOutput(num_classes=2)}, {"label": logits}, batch, world)
    assert result.samples == 10
    # Class 0: hits at ranks 2 (a, twice), 6 (c), 10 (e) of 10; class 1: 2 (b), 6 (c).
    first = (2 * 2 / 2 + 2 * 4 / 6 + 2 * 6 / 10) / 6
    second = (2 * 2 / 2 + 2 * 4 / 6) / 4
    assert result.flat()["label/mean_average_precision"] == pytest.approx((first + second) / 2)
    assert result.tables["label"] == {"average_precision_of_class": [pytest.approx(first), pytest.approx(second)]}
    # Answers above one half: of class 0 a, c, d with a, c right of a, c, e; of class 1 b, c, d with b, c right of b, c.
    assert result.flat()["label/f1"] == pytest.approx((2 * 2 / (3 + 3) + 2 * 2 / (3 + 2)) / 2)
    # A class that is neither there nor answered has no F1.
    with_none = replace(batch, targets={"label": nn.functional.pad(batch.targets["label"], (0, 1))})
    answers = {"label": nn.functional.pad(logits, (0, 1), value=-1.0)}
    assert judged({"label": LabelsOutput(num_classes=3)}, answers, with_none, world).flat() == result.flat()


def test_what_is_counted_is_added_in_numbers_that_count_beyond_16_millions(
    batch: Batch, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[torch.dtype] = []
    whole_sum = World.sum

    def noted_sum(self: World, terms: Tensor) -> Tensor:
        added.append(terms.dtype)
        return whole_sum(self, terms)

    monkeypatch.setattr(World, "sum", noted_sum)
    outputs: dict[str, Output] = {"label": LabelOutput(num_classes=2), "text": TextOutput(target="text")}
    judged(outputs, {"label": torch.zeros(ROWS, 2), "text": torch.zeros(ROWS, 2, 80)}, batch, world)
    assert len(added) > 2
    assert set(added) == {torch.int64, torch.float64}


def test_further_labels_are_judged_where_they_are_given_and_after_the_label(batch: Batch, world: World) -> None:
    classes = torch.tensor([0, 1, -1, 1, 0, 1])
    batch = replace(batch, labels=torch.tensor([1, 1, 1, 0, -1, 0]), targets={"colour": classes})
    logits = torch.tensor([[3.0, 0], [3, 0], [3, 0], [0, 3], [0, 3], [0, 3]])
    outputs = {"label": LabelOutput(num_classes=2), "colour": LabelOutput(num_classes=2, target="colour")}
    result = judged(outputs, {"label": logits, "colour": logits}, batch, world)
    assert [value.key for value in result.values] == ["label/accuracy", "label/f1", "colour/accuracy", "colour/f1"]
    assert (result.flat()["label/accuracy"], result.flat()["colour/accuracy"]) == (0.0, 0.5)
    assert result.num_judged == {"label": 8, "colour": 8}
    goal = objective(outputs)
    assert {name: float(count) for name, count in goal.counts(batch).items()} == {"label": 5, "colour": 5}
    expected = nn.functional.cross_entropy(logits[classes >= 0], classes[classes >= 0], reduction="sum")
    torch.testing.assert_close(goal.tasks["colour"].sum(logits, batch), expected)


def test_filled_in_bytes_are_counted_where_they_were_hidden(batch: Batch, world: World) -> None:
    guesses = torch.tensor([[70, 1], [1, 71], [72, 1], [1, 1], [1, 1], [70, 70]])
    logits = nn.functional.one_hot(guesses, 80).float()
    result = judged({"text": TextOutput(target="text")}, {"text": logits}, batch, world)
    assert (result.samples, result.flat()) == (10, {"text/accuracy": 3 / 5})


def test_a_hidden_token_with_the_id_0_is_learned_and_counted_as_any_other(batch: Batch, world: World) -> None:
    hidden = torch.tensor([[-1, 0], [0, -1], [2, 3], [0, 0], [0, 0], [0, 0]], dtype=torch.int32)
    batch = replace(batch, targets={"text": hidden})
    logits = nn.functional.one_hot(torch.tensor([[0, 1], [1, 1], [2, 1], [1, 1], [1, 1], [1, 1]]), 80).float()
    output = {"text": TextOutput(target="text")}
    assert judged(output, {"text": logits}, batch, world).flat() == {"text/accuracy": 2 / 4}
    task = objective(output).tasks["text"]
    assert float(task.count(batch)) == 4
    true, asked = torch.tensor([0, 0, 2, 3]), torch.cat([logits[0, :1], logits[1, 1:], logits[2]])
    torch.testing.assert_close(task.sum(logits, batch), nn.functional.cross_entropy(asked, true, reduction="sum"))


def test_a_metric_is_printed_in_its_unit() -> None:
    assert Metric("psnr", "dB").shown(21.256) == "21.26 dB"
    assert Metric("accuracy", "%").shown(0.5) == "50.00%"
    assert Metric("end_point_error", "px").shown(1.256) == "1.26 px"
    assert Metric("r2").shown(0.123456) == "0.1235"


def test_the_best_value_is_the_highest_or_the_lowest_as_its_metric_says() -> None:
    for higher_is_better in (True, False):
        metric = Metric("any", higher_is_better=higher_is_better)
        low, high = (Evaluation(1, (Value("a", metric, ALL, value),)).best_by for value in (1.0, 2.0))
        assert (high > low) == higher_is_better


def test_the_best_checkpoint_may_be_known_by_any_value() -> None:
    error = Metric("error", higher_is_better=False)
    values = (
        Value("a", Metric("accuracy"), ALL, 0.5),
        Value("a", Metric("accuracy"), "x", 0.25),
        Value("b", error, ALL, 3.0),
    )
    assert Evaluation(1, values).best_by == 0.5
    assert Evaluation(1, values, decided_by="a/accuracy/x").best_by == 0.25
    assert Evaluation(1, values, decided_by="b/error").best_by == -3.0


def test_the_keys_of_an_evaluation_are_known_before(batch: Batch, world: World) -> None:
    outputs = {"label": LabelOutput(num_classes=2), "video": VIDEO}
    answers = {"label": torch.zeros(ROWS, 2), "video": batch.arrays["video"] / 255 + 0.1}
    both = replace(
        batch, labels=torch.zeros(ROWS, dtype=torch.int64), lengths={**batch.lengths, "audio": torch.ones(ROWS)}
    )
    for inputs in (("video",), ("video", "audio")):
        found = evaluate(Fixed(answers), objective(outputs), [both], world, inputs)
        assert keys(objective(outputs), inputs) == [value.key for value in found.values]
    assert "label/accuracy/audio" in keys(objective(outputs), ("video", "audio"))


def test_without_a_sample_to_judge_a_score_is_nothing_and_no_error(batch: Batch, world: World) -> None:
    nobody = replace(batch, keys=("",) * ROWS, labels=torch.zeros(ROWS, dtype=torch.int64))
    outputs = {"label": LabelOutput(num_classes=2)}
    several = {"label": LabelsOutput(num_classes=2)}
    assert judged(several, {"label": torch.zeros(ROWS, 2)}, nobody, world).flat() == {}
    found = judged(outputs, {"label": torch.zeros(ROWS, 2)}, nobody, world)
    assert (found.samples, found.flat()) == (0, {})
    assert math.isnan(found.best_by), "no checkpoint is the best by nothing"
    assert found.summary() == "label accuracy not measured"
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["metrics"]["label"]["accuracy"] == {"all": None}


def test_sound_is_measured_against_its_own_range(world: World) -> None:
    audio = torch.rand(2, 8, 1) * 2 - 1
    batch = Batch({"audio": audio}, {"audio": torch.tensor([8, 8])}, torch.full((2,), -1), torch.ones(2), ("a", "b"))
    outputs = {"audio": GridOutput(target="audio", shape=(8,), num_channels=1, value_range=2.0)}
    # Values between -1 and 1: an error of a tenth is a twentieth of the range.
    result = judged(outputs, {"audio": audio + 0.1}, batch, world)
    assert result.flat()["audio/psnr"] == pytest.approx(20 * math.log10(20), rel=1e-4)


@pytest.mark.parametrize(
    ("value_range", "names"), [(0.0, ["root_mean_squared_error"]), (0.5, ["psnr", "root_mean_squared_error"])]
)
def test_the_ratio_goes_by_the_range_that_is_given_and_there_is_none_without_one(
    world: World, value_range: float, names: list[str]
) -> None:
    depth = torch.rand(2, 4, 1) * 7
    batch = Batch({"depth": depth}, {"depth": torch.tensor([4, 4])}, torch.full((2,), -1), torch.ones(2), ("a", "b"))
    grid = GridOutput(target="depth", shape=(4,), num_channels=1, value_range=value_range)
    found = judged({"depth": grid}, {"depth": depth + 0.1}, batch, world).flat()
    expected = {"psnr": 20 * math.log10(0.5 / 0.1), "root_mean_squared_error": 0.1}
    assert found == pytest.approx({f"depth/{name}": expected[name] for name in names}, rel=1e-4)


def test_each_modality_alone_is_judged_over_those_that_have_it_and_only_if_there_are_several(
    batch: Batch, world: World
) -> None:
    both = replace(
        batch,
        lengths={**batch.lengths, "audio": torch.tensor([9, 0, 9, 0, 0, 9])},
        labels=torch.tensor([1, 1, 0, 1, 0, 1]),
    )
    logits = nn.functional.one_hot(torch.tensor([1, 1, 1, 0, 0, 1]), 2).float()
    outputs = {"label": LabelOutput(num_classes=2)}
    found = evaluate(Fixed({"label": logits}), objective(outputs), [both], world, ("video", "audio"))
    assert found.samples == 5
    assert found.best_by == 3 / 5
    accuracies = {"label/accuracy": 3 / 5, "label/accuracy/video": 3 / 4, "label/accuracy/audio": 1 / 2}
    assert {key: value for key, value in found.flat().items() if "accuracy" in key} == accuracies
    assert found.as_json()["metrics"]["label"]["accuracy"] == {"all": 3 / 5, "video": 3 / 4, "audio": 1 / 2}
    alone = evaluate(Fixed({"label": logits}), objective(outputs), [both], world, ("video",))
    assert alone.flat().keys() == {"label/accuracy", "label/f1"}
