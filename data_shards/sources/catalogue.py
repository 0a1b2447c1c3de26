"""The published layouts that are read: the one place where they are listed."""

from data_shards.sources.layouts.flying_chairs import FlyingChairs
from data_shards.sources.layouts.kitti import Kitti
from data_shards.sources.layouts.layout import Layout
from data_shards.sources.layouts.sintel import Sintel

LAYOUTS: tuple[type[Layout], ...] = (FlyingChairs, Sintel, Kitti)
