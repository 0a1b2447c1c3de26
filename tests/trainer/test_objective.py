"""Objectives on batches with targets: each is its definition, and does not depend on how the batch is cut."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_shards.files.plugin_files import PluginError
from data_shards.loading.batch import Batch
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.text import TextOutput
from trainer.tasks.kinds.grid import GridTask
from trainer.tasks.kinds.label import LabelTask
from trainer.tasks.kinds.labels import LabelsTask
from trainer.tasks.kinds.text import TextTask
from trainer.tasks.objective import Objective, contagious, objective, only
from trainer.tasks.task import Task, Training

CLASSES, LENGTH = 5, 7


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    soft = torch.rand(6, CLASSES)
    return Batch(
        arrays={"video": torch.randint(0, 256, (6, 2, 3, 4, 3), dtype=torch.uint8)},
        lengths={"video": torch.tensor([2, 2, 1, 0, 2, 2])},
        labels=torch.tensor([0, 1, 2, 3, 4, -1]),
        weights=torch.tensor([1.0, 0.5, 1, 1, 1, 1]),
        keys=tuple("abcdef"),
        targets={
            "label": soft / soft.sum(dim=1, keepdim=True),
            "text": torch.randint(0, 2, (6, LENGTH), dtype=torch.int16) * 70,
        },
    )


@pytest.fixture
def answers() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "label": torch.randn(6, CLASSES),
        "text": torch.randn(6, LENGTH, 262),
        "video": torch.rand(6, 2, 3, 4, 3),
    }


def soft(batch: Batch, logits: Tensor) -> Tensor:
    targets = 0.9 * batch.targets["label"] + 0.1 / CLASSES
    losses = -(targets * logits.log_softmax(dim=1)).sum(dim=1) * batch.weights
    return losses[:5].sum() / batch.weights[:5].sum()


def several(batch: Batch, logits: Tensor) -> Tensor:
    yes = logits.sigmoid()
    losses = -(batch.targets["label"] * yes.log() + (1 - batch.targets["label"]) * (1 - yes).log()).mean(dim=1)
    return (losses * batch.weights).sum() / batch.weights.sum()


def hidden(batch: Batch, answer: Tensor) -> Tensor:
    total, count = torch.zeros(()), torch.zeros(())
    for logits, ids, weight in zip(answer, batch.targets["text"], batch.weights, strict=True):
        for place in ids.nonzero().flatten():
            total -= weight * logits[place].log_softmax(dim=0)[70]
            count += weight
    return total / count


def drawn(batch: Batch, answer: Tensor) -> Tensor:
    has = torch.tensor([0, 1, 2, 4, 5])
    errors = (answer - batch.arrays["video"] / 255).abs()[has].mean(dim=(1, 2, 3, 4))
    return (errors * batch.weights[has]).sum() / batch.weights[has].sum()


VIDEO = GridOutput(shape=(2, 3, 4), num_channels=3, target="video")
LABEL = LabelOutput(num_classes=CLASSES)


@pytest.mark.parametrize(
    ("name", "task", "definition"),
    [
        ("label", LabelTask("label", LABEL, Training(label_smoothing=0.1)), soft),
        ("label", LabelsTask("label", LabelsOutput(num_classes=CLASSES)), several),
        ("text", TextTask("text", TextOutput(target="text")), hidden),
        ("video", GridTask("video", VIDEO), drawn),
    ],
)
def test_a_loss_is_its_definition_however_the_batch_is_cut(
    batch: Batch,
    answers: dict[str, Tensor],
    name: str,
    task: Task[Any],
    definition: Callable[[Batch, Tensor], Tensor],
) -> None:
    count = task.count(batch)
    for num_parts in (1, 2, 3):
        parts = zip(answers[name].chunk(num_parts), batch.micro_batches(num_parts), strict=True)
        loss = sum(task.sum(answer, part) for answer, part in parts) / count
        # Sums of a few dozen float32 terms in another order.
        torch.testing.assert_close(loss, definition(batch, answers[name]), rtol=1e-5, atol=1e-6)


def test_mixed_labels_that_are_certain_are_labels(batch: Batch, answers: dict[str, Tensor]) -> None:
    certain = torch.nn.functional.one_hot(batch.labels.clamp(min=0), CLASSES).float()
    for smoothing in (0.0, 0.1):
        task = LabelTask("label", LABEL, Training(smoothing))
        expected = task.sum(answers["label"], replace(batch, targets={}))
        torch.testing.assert_close(task.sum(answers["label"], replace(batch, targets={"label": certain})), expected)


def test_the_queries_that_are_asked_are_those_of_the_whole_batch_and_change_with_it(
    batch: Batch, answers: dict[str, Tensor]
) -> None:
    task = GridTask("video", replace(VIDEO, train_queries=7), Training(seed=3))
    asked = task.points(batch)
    assert asked is not None
    assert len(asked.unique()) == 7
    for part in batch.micro_batches(3):
        of_part = task.points(part)
        assert of_part is not None
        assert torch.equal(of_part, asked)
    others = [replace(task, training=Training(seed=4)).points(batch), task.points(replace(batch, index=1))]
    assert all(other is not None and not torch.equal(other, asked) for other in others)
    every = task.points(batch, every=True)
    assert every is not None
    assert torch.equal(every, torch.arange(24))
    # The loss is that of those cells.
    some = answers["video"].flatten(1, 3)[:, asked]
    errors = (some - (batch.arrays["video"] / 255).flatten(1, 3)[:, asked]).abs().mean(dim=(1, 2))
    expected = (errors * batch.weights * (batch.lengths["video"] > 0)).sum()
    torch.testing.assert_close(task.sum(some, batch), expected)


class Spy(nn.Module):
    """Answers everything with zeros; remembers what it was asked."""

    def forward(
        self, arrays: dict[str, Tensor], _lengths: dict[str, Tensor], *, points: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        self.points = points
        rows = len(arrays["video"])
        return {"label": torch.zeros(rows, CLASSES), "video": torch.zeros(rows, 7, 3)}


def test_an_objective_has_a_task_for_each_output_with_its_weight(batch: Batch) -> None:
    outputs = {"label": LabelOutput(num_classes=CLASSES, loss_weight=0.5), "video": replace(VIDEO, train_queries=7)}
    goal, spy = objective(outputs, label_smoothing=0.1, seed=3), Spy()
    assert goal.weights == {"label": 0.5, "video": 1.0}
    assert goal.tasks["label"] == LabelTask("label", outputs["label"], Training(0.1, 3))
    sums = goal.sums(spy, batch)
    assert sums.keys() == goal.counts(batch).keys() == {"label", "video"}
    assert spy.points.keys() == {"video"}


def test_a_loss_by_modality_is_that_of_the_samples_that_have_it(batch: Batch) -> None:
    outputs = {"label": LabelOutput(num_classes=CLASSES, loss_weight=0.5), "video": replace(VIDEO, train_queries=7)}
    goal = objective(outputs)
    both = replace(batch, lengths={**batch.lengths, "audio": torch.tensor([9, 0, 0, 0, 0, 0])})
    sums, counts = (goal.sums(Spy(), both, by_input=True), goal.counts(both, by_input=True))
    assert sums.keys() == counts.keys() == {"label", "video", "label/video", "label/audio"}
    # The spy answers zeros, which cost as much whatever is true.
    torch.testing.assert_close(sums["label/audio"], sums["label"] * counts["label/audio"] / counts["label"])
    assert counts["label/audio"] == batch.weights[0]
    assert counts["label/video"] == counts["label"] - batch.weights[3]
    assert not sums["label/audio"].requires_grad


def test_the_cells_that_are_asked_are_the_same_in_every_release(batch: Batch) -> None:
    # A run that resumes under another release must ask what it would have asked.
    asked = GridTask("video", replace(VIDEO, train_queries=7), Training(seed=3)).points(replace(batch, index=5))
    assert asked is not None
    assert asked.tolist() == [0, 12, 19, 17, 5, 14, 2]


def test_mixed_labels_of_a_sample_without_a_label_cost_nothing(batch: Batch, answers: dict[str, Tensor]) -> None:
    task = LabelTask("label", LABEL)
    labelled = replace(batch, labels=torch.tensor([0, 1, 2, 3, 4, 0]))
    assert float(task.count(batch)) == 4.5
    assert float(task.count(labelled)) == 5.5
    assert float(task.sum(answers["label"], batch)) < float(task.sum(answers["label"], labelled))
    heavier = replace(batch, weights=2 * batch.weights)
    torch.testing.assert_close(task.sum(answers["label"], heavier), 2 * task.sum(answers["label"], batch))


def test_mixed_labels_are_of_the_samples_own_label_alone(batch: Batch, answers: dict[str, Tensor]) -> None:
    colour = LabelTask("colour", replace(LABEL, target="colour"))
    both = replace(batch, targets={**batch.targets, "colour": torch.tensor([1, 0, -1, 2, 2, 4])})
    alone = replace(both, targets={"colour": both.targets["colour"]})
    assert float(colour.count(both)) == float(colour.count(alone)) == 4.5
    assert float(colour.sum(answers["label"], both)) == float(colour.sum(answers["label"], alone))


def test_a_class_of_a_mixed_label_weighs_what_it_is_given(batch: Batch, answers: dict[str, Tensor]) -> None:
    class_weights = (1.0, 0.0, 3.0, 0.5, 2.0)
    task = LabelTask("label", replace(LABEL, class_weights=class_weights), Training(label_smoothing=0.1))
    weights = torch.tensor(class_weights)
    mixed, has = batch.targets["label"], (batch.labels >= 0) * batch.weights
    losses = -((0.9 * mixed + 0.1 / CLASSES) * weights * answers["label"].log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(task.sum(answers["label"], batch), (losses * has).sum())
    torch.testing.assert_close(task.count(batch), ((mixed * weights).sum(dim=1) * has).sum())


def test_the_loss_is_the_weighted_sum_of_what_each_task_comes_to() -> None:
    goal = objective({"a": replace(LABEL, loss_weight=0.5), "b": replace(LABEL, target="b", loss_weight=2.0)})
    sums, counts = ({"a": torch.tensor(a), "b": torch.tensor(b)} for a, b in ((6.0, 8.0), (3.0, 2.0)))
    # What is only looked at takes no part.
    sums["a/video"] = torch.tensor(100.0)
    assert float(goal.loss(sums, counts)) == 0.5 * 2 + 2 * 4


def test_answers_about_the_whole_sample_are_reported_first_and_its_own_label_before_all() -> None:
    outputs = {
        "b": replace(LABEL, target="b"),
        "video": VIDEO,
        "a": replace(LABEL, target="a"),
        "z": LABEL,
        "audio": replace(VIDEO, target="audio"),
    }
    assert [task.name for task in objective(outputs).by_importance()] == ["z", "a", "b", "audio", "video"]


def test_an_infinite_loss_makes_its_gradient_no_number() -> None:
    for value, gradient in ((2.0, 3.0), (float("inf"), float("nan"))):
        number = torch.tensor(value, requires_grad=True)
        contagious(3 * number).backward()
        assert number.grad is not None
        assert number.grad.item() == pytest.approx(gradient, nan_ok=True)
        assert torch.equal(contagious(torch.tensor(2.0)), torch.tensor(2.0))


@dataclass(frozen=True)
class Own(LabelTask):
    """A task of a plug-in, whose loss is what it is given."""

    answers: Any = None

    def count(self, batch: Batch) -> Tensor:
        return torch.ones(())

    def sum(self, answer: Tensor, batch: Batch) -> Tensor:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers(answer)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answers", "error", "sentence"),
    [
        (lambda answer: answer.sum(), None, ""),
        (KeyError("x"), PluginError, r"Own\.sum fails \(.*'x'.*\); the answer is torch\.float32 \[6, 5\]$"),
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError, "^full$"),
        (lambda _: 3, PluginError, r"Own\.sum returned int, expected a tensor of one floating point number"),
        (lambda answer: answer.sum(dim=0), PluginError, r"Own\.sum returned torch\.float32 \[5\], expected"),
        (lambda answer: answer.sum().long(), PluginError, r"Own\.sum returned torch\.int64 \[\], expected"),
        (lambda answer: answer.sum().detach(), PluginError, r"Own\.sum returned a number without gradient"),
    ],
)
def test_what_a_plug_ins_task_does_wrong_is_told_with_its_name(
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    answers: Any,  # noqa: ANN401  # what it answers, or raises
    error: type[Exception] | None,
    sentence: str,
) -> None:
    goal = Objective({"label": Own("label", LABEL, answers=answers)}, {"label": 1.0})
    logits = torch.ones(6, CLASSES, requires_grad=True)

    class Says(nn.Module):
        def forward(self, *_: object) -> dict[str, Tensor]:
            return {"label": logits}

    for is_own in (True, False):
        monkeypatch.setattr("trainer.tasks.objective.is_of_plugin", lambda _: is_own)  # noqa: B023
        # Of a task of ours the error itself is told, and what it returns is not looked at.
        expected = error if is_own else type(answers) if isinstance(answers, Exception) else None
        if expected is None:
            goal.sums(Says(), batch)
        else:
            with pytest.raises(expected, match=sentence if is_own else None):
                goal.sums(Says(), batch)
    monkeypatch.setattr("trainer.tasks.objective.is_of_plugin", lambda _: True)
    with torch.no_grad():
        frozen = Objective({"label": Own("label", LABEL, answers=lambda answer: answer.detach().sum())}, {"label": 1.0})
        logits = torch.ones(6, CLASSES)
        # Where nothing asks for a gradient, as in an evaluation, none is missed.
        assert float(frozen.sums(Says(), batch)["label"]) == 6 * CLASSES


def test_a_plug_ins_count_that_fails_is_told_without_an_answer(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uncounted(LabelTask):
        def count(self, batch: Batch) -> Tensor:
            raise KeyError("x")

    monkeypatch.setattr("trainer.tasks.objective.is_of_plugin", lambda _: True)
    with pytest.raises(PluginError, match=r"Uncounted\.count fails \(.*'x'.*\)$"):
        Objective({"label": Uncounted("label", LABEL)}, {"label": 1.0}).counts(batch)


def test_only_one_input_is_left_of_lengths() -> None:
    lengths = {"a": torch.tensor([2, 0]), "b": torch.tensor([1, 3])}
    assert {name: each.tolist() for name, each in only(lengths, "b").items()} == {"a": [0, 0], "b": [1, 3]}


def test_a_batch_with_one_modality_is_not_looked_at_by_modality(batch: Batch) -> None:
    goal = objective({"label": LabelOutput(num_classes=CLASSES), "video": replace(VIDEO, train_queries=7)})
    assert goal.counts(batch, by_input=True).keys() == goal.sums(Spy(), batch, by_input=True).keys()
    assert goal.counts(batch, by_input=True).keys() == {"label", "video"}
    every = goal.asks(batch, every=True)["points"]["video"]
    assert every.tolist() == list(range(24))
    assert objective({"label": LabelOutput(num_classes=CLASSES)}).asks(batch) == {}
