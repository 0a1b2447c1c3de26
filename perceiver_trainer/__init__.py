"""The library: one name to import everything from.

Every name is imported when it is first asked for: a configuration costs no PyTorch, a network no DeepSpeed. Nothing in
this repository imports this package but its command and its examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs.network import network_config
    from data_shards.config import DataConfig
    from data_shards.loading.batch import Batch
    from data_shards.loading.shard_loader import ShardLoader
    from data_shards.modalities.kinds.array import ArrayConfig
    from data_shards.modalities.kinds.audio import AudioConfig
    from data_shards.modalities.kinds.flow import FlowConfig
    from data_shards.modalities.kinds.image import ImageConfig
    from data_shards.modalities.kinds.label import LabelConfig
    from data_shards.modalities.kinds.points import PointsConfig
    from data_shards.modalities.kinds.text import TextConfig
    from data_shards.modalities.kinds.video import VideoConfig
    from data_shards.modalities.modality import Member, Members, Modality, Prepared
    from launch.answers.loaded_run import LoadedRun, load_run
    from launch.from_python import train
    from model.config.attention import AttentionConfig
    from model.config.cost import Cost, Kept
    from model.config.custom_network import CustomNetwork
    from model.config.decoder import DecoderConfig
    from model.config.grids import PositionsConfig
    from model.config.perceiver import PerceiverConfig
    from model.modalities.array import ArrayInput
    from model.modalities.audio import AudioInput
    from model.modalities.flow import FlowInput
    from model.modalities.image import ImageInput
    from model.modalities.input import Input
    from model.modalities.label import LabelInput
    from model.modalities.points import PointsInput
    from model.modalities.text import TextInput
    from model.modalities.video import VideoInput
    from model.outputs.autoregressive import AutoregressiveOutput
    from model.outputs.embedding import EmbeddingOutput
    from model.outputs.flow import FlowOutput
    from model.outputs.grid import GridOutput
    from model.outputs.label import LabelOutput, LabelsOutput
    from model.outputs.masked import MaskedOutput
    from model.outputs.output import Network, Output
    from model.outputs.points import PointsOutput
    from model.outputs.text import TextOutput
    from model.outputs.value import ValueOutput
    from model.outputs.vector import VectorOutput
    from model.perceiver import Perceiver
    from trainer.distributed.world import World
    from trainer.optimizer_choice import RunOptimizer
    from trainer.sinks.sink import RunSink
    from trainer.standalone.checkpoint_store import CheckpointStore
    from trainer.tasks.answer import AnsweredFile, Row, Telling
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
    from trainer.tasks.metric import Measurement, Metric, Result, Sums
    from trainer.tasks.task import Others, Task, Training

__all__ = [
    "AnsweredFile",
    "ArrayConfig",
    "ArrayInput",
    "AttentionConfig",
    "AudioConfig",
    "AudioInput",
    "AutoregressiveOutput",
    "AutoregressiveTask",
    "Batch",
    "CheckpointStore",
    "Cost",
    "CustomNetwork",
    "DataConfig",
    "DecoderConfig",
    "EmbeddingOutput",
    "EmbeddingTask",
    "FlowConfig",
    "FlowInput",
    "FlowOutput",
    "FlowTask",
    "GridOutput",
    "GridTask",
    "ImageConfig",
    "ImageInput",
    "Input",
    "Kept",
    "LabelConfig",
    "LabelInput",
    "LabelOutput",
    "LabelTask",
    "LabelsOutput",
    "LabelsTask",
    "LoadedRun",
    "MaskedOutput",
    "MaskedTask",
    "Measurement",
    "Member",
    "Members",
    "Metric",
    "Modality",
    "Network",
    "Others",
    "Output",
    "Perceiver",
    "PerceiverConfig",
    "PointsConfig",
    "PointsInput",
    "PointsOutput",
    "PointsTask",
    "PositionsConfig",
    "Prepared",
    "Result",
    "Row",
    "RunOptimizer",
    "RunSink",
    "ShardLoader",
    "Sums",
    "Task",
    "Telling",
    "TextConfig",
    "TextInput",
    "TextOutput",
    "TextTask",
    "Training",
    "ValueOutput",
    "ValueTask",
    "VectorOutput",
    "VideoConfig",
    "VideoInput",
    "World",
    "load_run",
    "network_config",
    "train",
]

# Each name stands twice: type checkers read the imports above, and Python this table, which imports nothing by itself.
_HOMES = {
    "configs.network": ("network_config",),
    "data_shards.config": ("DataConfig",),
    "data_shards.loading.batch": ("Batch",),
    "data_shards.loading.shard_loader": ("ShardLoader",),
    "data_shards.modalities.kinds.array": ("ArrayConfig",),
    "data_shards.modalities.kinds.audio": ("AudioConfig",),
    "data_shards.modalities.kinds.flow": ("FlowConfig",),
    "data_shards.modalities.kinds.image": ("ImageConfig",),
    "data_shards.modalities.kinds.label": ("LabelConfig",),
    "data_shards.modalities.kinds.points": ("PointsConfig",),
    "data_shards.modalities.kinds.text": ("TextConfig",),
    "data_shards.modalities.kinds.video": ("VideoConfig",),
    "data_shards.modalities.modality": ("Member", "Members", "Modality", "Prepared"),
    "launch.answers.loaded_run": ("LoadedRun", "load_run"),
    "launch.from_python": ("train",),
    "model.config.attention": ("AttentionConfig",),
    "model.config.cost": ("Cost", "Kept"),
    "model.config.custom_network": ("CustomNetwork",),
    "model.config.decoder": ("DecoderConfig",),
    "model.config.grids": ("PositionsConfig",),
    "model.config.perceiver": ("PerceiverConfig",),
    "model.modalities.array": ("ArrayInput",),
    "model.modalities.audio": ("AudioInput",),
    "model.modalities.flow": ("FlowInput",),
    "model.modalities.image": ("ImageInput",),
    "model.modalities.input": ("Input",),
    "model.modalities.label": ("LabelInput",),
    "model.modalities.points": ("PointsInput",),
    "model.modalities.text": ("TextInput",),
    "model.modalities.video": ("VideoInput",),
    "model.outputs.autoregressive": ("AutoregressiveOutput",),
    "model.outputs.embedding": ("EmbeddingOutput",),
    "model.outputs.flow": ("FlowOutput",),
    "model.outputs.grid": ("GridOutput",),
    "model.outputs.label": ("LabelOutput", "LabelsOutput"),
    "model.outputs.masked": ("MaskedOutput",),
    "model.outputs.output": ("Network", "Output"),
    "model.outputs.points": ("PointsOutput",),
    "model.outputs.text": ("TextOutput",),
    "model.outputs.value": ("ValueOutput",),
    "model.outputs.vector": ("VectorOutput",),
    "model.perceiver": ("Perceiver",),
    "trainer.distributed.world": ("World",),
    "trainer.optimizer_choice": ("RunOptimizer",),
    "trainer.sinks.sink": ("RunSink",),
    "trainer.standalone.checkpoint_store": ("CheckpointStore",),
    "trainer.tasks.answer": ("AnsweredFile", "Row", "Telling"),
    "trainer.tasks.kinds.autoregressive": ("AutoregressiveTask",),
    "trainer.tasks.kinds.embedding": ("EmbeddingTask",),
    "trainer.tasks.kinds.flow": ("FlowTask",),
    "trainer.tasks.kinds.grid": ("GridTask",),
    "trainer.tasks.kinds.label": ("LabelTask",),
    "trainer.tasks.kinds.labels": ("LabelsTask",),
    "trainer.tasks.kinds.masked": ("MaskedTask",),
    "trainer.tasks.kinds.points": ("PointsTask",),
    "trainer.tasks.kinds.text": ("TextTask",),
    "trainer.tasks.kinds.value": ("ValueTask",),
    "trainer.tasks.metric": ("Measurement", "Metric", "Result", "Sums"),
    "trainer.tasks.task": ("Others", "Task", "Training"),
}


def __getattr__(name: str) -> object:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'perceiver_trainer' has no attribute {name!r}")
    from perceiver_trainer import shadowing

    # Before the import: with another project's `model` on the path, its error would name neither of the two.
    sentence = shadowing.problem()
    if sentence:
        raise ImportError(sentence)
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
