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
    from data_shards.modalities.modality import Members, Modality, Prepared
    from launch.answers.loaded_run import LoadedRun, load_run
    from launch.from_python import train
    from model.config.attention import AttentionConfig
    from model.config.custom_network import CustomNetwork
    from model.config.decoder import DecoderConfig
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
    from model.outputs.output import Output
    from model.outputs.points import PointsOutput
    from model.outputs.text import TextOutput
    from model.outputs.value import ValueOutput
    from model.perceiver import Perceiver
    from trainer.distributed.world import World
    from trainer.optimizer_choice import RunOptimizer
    from trainer.sinks.sink import RunSink
    from trainer.standalone.checkpoint_store import CheckpointStore
    from trainer.tasks.kinds.label import LabelTask
    from trainer.tasks.metric import Measurement, Metric, Result, Sums
    from trainer.tasks.task import Task

__all__ = [
    "ArrayConfig",
    "ArrayInput",
    "AttentionConfig",
    "AudioConfig",
    "AudioInput",
    "AutoregressiveOutput",
    "Batch",
    "CheckpointStore",
    "CustomNetwork",
    "DataConfig",
    "DecoderConfig",
    "EmbeddingOutput",
    "FlowConfig",
    "FlowInput",
    "FlowOutput",
    "GridOutput",
    "ImageConfig",
    "ImageInput",
    "Input",
    "LabelConfig",
    "LabelInput",
    "LabelOutput",
    "LabelTask",
    "LabelsOutput",
    "LoadedRun",
    "MaskedOutput",
    "Measurement",
    "Members",
    "Metric",
    "Modality",
    "Output",
    "Perceiver",
    "PerceiverConfig",
    "PointsConfig",
    "PointsInput",
    "PointsOutput",
    "Prepared",
    "Result",
    "RunOptimizer",
    "RunSink",
    "ShardLoader",
    "Sums",
    "Task",
    "TextConfig",
    "TextInput",
    "TextOutput",
    "ValueOutput",
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
    "data_shards.modalities.modality": ("Members", "Modality", "Prepared"),
    "launch.answers.loaded_run": ("LoadedRun", "load_run"),
    "launch.from_python": ("train",),
    "model.config.attention": ("AttentionConfig",),
    "model.config.custom_network": ("CustomNetwork",),
    "model.config.decoder": ("DecoderConfig",),
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
    "model.outputs.output": ("Output",),
    "model.outputs.points": ("PointsOutput",),
    "model.outputs.text": ("TextOutput",),
    "model.outputs.value": ("ValueOutput",),
    "model.perceiver": ("Perceiver",),
    "trainer.distributed.world": ("World",),
    "trainer.optimizer_choice": ("RunOptimizer",),
    "trainer.sinks.sink": ("RunSink",),
    "trainer.standalone.checkpoint_store": ("CheckpointStore",),
    "trainer.tasks.kinds.label": ("LabelTask",),
    "trainer.tasks.metric": ("Measurement", "Metric", "Result", "Sums"),
    "trainer.tasks.task": ("Task",),
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
