"""Every kind of answer that the network knows has a task, and each says of itself what others must know."""

from typing import Any

import pytest

from model.config.perceiver import PerceiverConfig
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.kinds import KINDS, OUTPUTS, kind_of
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.output import Output
from model.outputs.points import PointsOutput
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput
from trainer.tasks.kinds.catalogue import BY_KIND, TASKS
from trainer.tasks.metric import Metric
from trainer.tasks.objective import objective
from trainer.tasks.task import Task, Training

# Of each kind that needs it, the input that it answers for.
INPUTS = {"image": ImageInput(height=4, width=4), "text": TextInput(max_tokens=4), "flow": FlowInput(height=8, width=8)}
TARGETS = {"grid": "image", "masked": "image", "text": "text", "autoregressive": "text", "flow": "flow"}


def tasks() -> list[Task[Any]]:
    more: dict[str, Any] = {"points": {"coordinates": "where"}, "embedding": {"pair": ("image", "text")}}
    outputs = {kind: KINDS[kind](target=TARGETS.get(kind, ""), **more.get(kind, {})) for kind in KINDS}
    answers = {name: output.named(name, PerceiverConfig(inputs=INPUTS)) for name, output in outputs.items()}
    return list(objective(answers).tasks.values())


def test_the_network_and_the_trainer_know_the_same_kinds() -> None:
    assert KINDS.keys() == BY_KIND.keys()
    assert len(KINDS) == len(OUTPUTS) == len(TASKS)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_kind_chooses_its_class_in_a_configuration(output: type[Output]) -> None:
    assert KINDS[kind_of(output)] is output


def test_a_task_measures_what_its_metrics_promise_and_the_names_of_metrics_are_its_own() -> None:
    for task in tasks():
        names = [metric.name for metric in task.metrics()]
        assert names
        assert len(set(names)) == len(names)
        assert all("/" not in name for name in names)
        assert all(metric.highest is None or metric.higher_is_better for metric in task.metrics())


ERRORS = (
    Metric("root_mean_squared_error", "", higher_is_better=False, highest=None),
    Metric("mean_absolute_error", "", higher_is_better=False, highest=None),
    Metric("r2", "", higher_is_better=True, highest=None),
)


def part(name: str) -> Metric:
    return Metric(name, "%", higher_is_better=True, highest=1.0)


@pytest.mark.parametrize(
    ("output", "metrics", "traits"),
    [
        (LabelOutput(num_classes=5), (part("accuracy"), part("f1")), {"by_input"}),
        (LabelOutput(num_classes=6), (part("accuracy"), part("top_5_accuracy"), part("f1")), {"by_input"}),
        (LabelsOutput(num_classes=6), (part("mean_average_precision"), part("f1")), {"by_input"}),
        (
            LabelsOutput(num_classes=6, loss="softmax"),
            (part("mean_average_precision"), part("accuracy")),
            {"by_input"},
        ),
        (ValueOutput(target="age"), ERRORS, {"by_input"}),
        (TextOutput(target="text"), (part("accuracy"),), set()),
        (FlowOutput(target="flow"), (Metric("end_point_error", "px", higher_is_better=False),), {"asks_many"}),
        (
            GridOutput(target="a", shape=(4,), value_range=2.0),
            (Metric("psnr", "dB", higher_is_better=True), ERRORS[0]),
            {"asks_many", "is_compared", "shows_unit_range"},
        ),
        (GridOutput(target="a", shape=(4,), value_range=0.0), (ERRORS[0],), {"asks_many", "is_compared"}),
        (
            MaskedOutput(target="a", shape=(4,), value_range=1.0),
            ERRORS,
            {"asks_many", "is_compared", "shows_unit_range"},
        ),
        (PointsOutput(target="a", coordinates="at"), ERRORS, {"asks_many"}),
        (EmbeddingOutput(pair=("a", "b")), (part("recall_at_1"), part("recall_at_5")), set()),
        (
            AutoregressiveOutput(target="text"),
            (Metric(f"bits_per_{AutoregressiveOutput().unit}", higher_is_better=False), part("accuracy")),
            set(),
        ),
    ],
)
def test_a_kind_is_judged_and_treated_as_its_answers_are(
    output: Output, metrics: tuple[Metric, ...], traits: set[str]
) -> None:
    [task] = objective({"it": output}).tasks.values()
    assert task.metrics() == metrics
    names = ("by_input", "asks_many", "is_compared", "shows_unit_range")
    # The range of what is not compared is never asked for.
    assert {name for name in names if getattr(task, name) and (name != names[3] or task.is_compared)} == traits


def test_what_nobody_says_of_a_training_is_no_smoothing_and_the_seed_0() -> None:
    assert Training() == Training(label_smoothing=0.0, seed=0)
    assert objective({"it": ValueOutput(target="age")}).tasks["it"].training == Training()
    assert Metric("any") == Metric("any", "", higher_is_better=True, highest=None)


def test_one_label_and_several_answer_the_same_shape() -> None:
    assert LabelOutput(num_classes=7).num_answered == LabelsOutput(num_classes=7).num_answered == 7
