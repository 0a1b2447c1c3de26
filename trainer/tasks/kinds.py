"""All tasks, by the kind of answer that each is for."""

from typing import Any

from trainer.tasks.autoregressive import AutoregressiveTask
from trainer.tasks.embedding import EmbeddingTask
from trainer.tasks.flow import FlowTask
from trainer.tasks.grid import GridTask
from trainer.tasks.label import LabelTask
from trainer.tasks.labels import LabelsTask
from trainer.tasks.masked import MaskedTask
from trainer.tasks.points import PointsTask
from trainer.tasks.task import Task
from trainer.tasks.text import TextTask
from trainer.tasks.value import ValueTask

TASKS: tuple[type[Task[Any]], ...] = (
    LabelTask,
    LabelsTask,
    ValueTask,
    TextTask,
    FlowTask,
    GridTask,
    MaskedTask,
    PointsTask,
    EmbeddingTask,
    AutoregressiveTask,
)
BY_KIND: dict[str, type[Task[Any]]] = {task.kind: task for task in TASKS}
"""Those above, and those of the plug-ins in use, which configs/plugins.py adds."""
