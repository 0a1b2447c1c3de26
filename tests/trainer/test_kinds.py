"""Every kind of answer that the network knows has a task, and each says of itself what others must know."""

from typing import Any

import pytest

from model.config.perceiver import PerceiverConfig
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.kinds import KINDS, OUTPUTS, kind_of
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.output import Output
from trainer.tasks.kinds.catalogue import BY_KIND, TASKS
from trainer.tasks.objective import objective
from trainer.tasks.task import Task

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


def test_one_label_and_several_answer_the_same_shape() -> None:
    assert LabelOutput(num_classes=7).num_answered == LabelsOutput(num_classes=7).num_answered == 7
