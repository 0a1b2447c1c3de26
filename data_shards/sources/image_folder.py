"""Images in one folder per class, as in ImageNet: train/n01440764/*.JPEG, val/n01440764/*.JPEG."""

from pathlib import Path
from typing import Unpack

from data_shards.building.builder import BuildOptions, build_table
from data_shards.building.raw_sample import File, Row
from data_shards.format.manifest import Manifest
from data_shards.sources import class_folders


def build(folder: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards of the images below the folder; class_folders says which layouts are understood."""
    files, names = class_folders.find(folder, "image", options.get("tell"))
    rows = [Row(line, (File(file.path),), file.label, split=file.split) for line, file in enumerate(files)]
    return build_table(rows, out, label_names=names, **options)
