"""The published layouts that are read: the one place where they are listed."""

from data_shards.sources.layouts.audioset import AudioSet
from data_shards.sources.layouts.autoflow import AutoFlow
from data_shards.sources.layouts.c4 import C4
from data_shards.sources.layouts.flying_chairs import FlyingChairs
from data_shards.sources.layouts.glue import Glue
from data_shards.sources.layouts.imagenet import ImageNet
from data_shards.sources.layouts.kinetics import Kinetics
from data_shards.sources.layouts.kitti import Kitti
from data_shards.sources.layouts.layout import Layout
from data_shards.sources.layouts.modelnet40 import ModelNet40
from data_shards.sources.layouts.sintel import Sintel
from data_shards.sources.layouts.wikipedia import Wikipedia

LAYOUTS: tuple[type[Layout], ...] = (
    ImageNet,
    AudioSet,
    Kinetics,
    ModelNet40,
    AutoFlow,
    FlyingChairs,
    Sintel,
    Kitti,
    C4,
    Wikipedia,
    Glue,
)
