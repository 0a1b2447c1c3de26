"""All tasks, by the kind of answer that each is for."""

from typing import Any

from trainer.tasks.kinds.autoregressive import AutoregressiveTask
from trainer.tasks.kinds.embedding import EmbeddingTask
from trainer.tasks.kinds.flow import FlowTask
from trainer.tasks.kinds.grid import GridTask
from trainer.tasks.kinds.label import LabelTask
from trainer.tasks.kinds.labels import LabelsTask
from trainer.tasks.kinds.masked import MaskedTask
from trainer.tasks.kinds.points import PointsTask
from trainer.tasks.kinds.text import TextTask
from trainer.tasks.kinds.value import ValueTask
from trainer.tasks.task import Task

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
