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
    from data_shards.modalities.kinds.audio import AudioConfig
    from data_shards.modalities.kinds.flow import FlowConfig
    from data_shards.modalities.kinds.image import ImageConfig
    from data_shards.modalities.kinds.points import PointsConfig
    from data_shards.modalities.kinds.text import TextConfig
    from data_shards.modalities.kinds.video import VideoConfig
    from data_shards.modalities.modality import Members, Modality, Prepared
    from launch.answers.loaded_run import LoadedRun, load_run
    from model.config.custom_network import CustomNetwork
    from model.config.perceiver import PerceiverConfig
    from model.modalities.audio import AudioInput
    from model.modalities.flow import FlowInput
    from model.modalities.image import ImageInput
    from model.modalities.input import Input
    from model.modalities.label import LabelInput
    from model.modalities.points import PointsInput
    from model.modalities.text import TextInput
    from model.modalities.video import VideoInput
    from model.outputs.label import LabelOutput
    from model.outputs.output import Output
    from model.perceiver import Perceiver
    from trainer.distributed.world import World
    from trainer.optimizer_choice import RunOptimizer
    from trainer.sinks.sink import RunSink
    from trainer.standalone.checkpoint_store import CheckpointStore
    from trainer.tasks.kinds.label import LabelTask
    from trainer.tasks.metric import Measurement, Metric, Result, Sums
    from trainer.tasks.task import Task

__all__ = [
    "AudioConfig",
    "AudioInput",
    "Batch",
    "CheckpointStore",
    "CustomNetwork",
    "DataConfig",
    "FlowConfig",
    "FlowInput",
    "ImageConfig",
    "ImageInput",
    "Input",
    "LabelInput",
    "LabelOutput",
    "LabelTask",
    "LoadedRun",
    "Measurement",
    "Members",
    "Metric",
    "Modality",
    "Output",
    "Perceiver",
    "PerceiverConfig",
    "PointsConfig",
    "PointsInput",
    "Prepared",
    "Result",
    "RunOptimizer",
    "RunSink",
    "ShardLoader",
    "Sums",
    "Task",
    "TextConfig",
    "TextInput",
    "VideoConfig",
    "VideoInput",
    "World",
    "load_run",
    "network_config",
]

# Each name stands twice: type checkers read the imports above, and Python this table, which imports nothing by itself.
_HOMES = {
    "model.modalities.video": ("VideoInput",),
    "model.modalities.text": ("TextInput",),
    "model.modalities.points": ("PointsInput",),
    "model.modalities.label": ("LabelInput",),
    "model.modalities.input": ("Input",),
    "model.modalities.image": ("ImageInput",),
    "model.modalities.flow": ("FlowInput",),
    "model.modalities.audio": ("AudioInput",),
    "configs.network": ("network_config",),
    "trainer.distributed.world": ("World",),
    "trainer.tasks.metric": (
        "Measurement",
        "Metric",
        "Result",
        "Sums",
    ),
    "trainer.tasks.task": ("Task",),
    "trainer.tasks.kinds.label": ("LabelTask",),
    "model.outputs.output": ("Output",),
    "model.outputs.label": ("LabelOutput",),
    "data_shards.modalities.modality": (
        "Members",
        "Modality",
        "Prepared",
    ),
    "data_shards.loading.batch": ("Batch",),
    "data_shards.config": ("DataConfig",),
    "data_shards.modalities.kinds.audio": ("AudioConfig",),
    "data_shards.modalities.kinds.flow": ("FlowConfig",),
    "data_shards.modalities.kinds.image": ("ImageConfig",),
    "data_shards.modalities.kinds.points": ("PointsConfig",),
    "data_shards.modalities.kinds.text": ("TextConfig",),
    "data_shards.modalities.kinds.video": ("VideoConfig",),
    "data_shards.loading.shard_loader": ("ShardLoader",),
    "launch.answers.loaded_run": ("LoadedRun", "load_run"),
    "model.config.custom_network": ("CustomNetwork",),
    "model.config.perceiver": ("PerceiverConfig",),
    "model.perceiver": ("Perceiver",),
    "trainer.optimizer_choice": ("RunOptimizer",),
    "trainer.sinks.sink": ("RunSink",),
    "trainer.standalone.checkpoint_store": ("CheckpointStore",),
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
