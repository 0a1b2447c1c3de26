"""ModelNet40: CLASS/train/*.off and CLASS/test/*.off, or the HDF5 files of modelnet40_ply_hdf5_2048."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Unpack

from data_shards.building.builder import BuildOptions
from data_shards.format.manifest import Manifest
from data_shards.sources import point_clouds
from data_shards.sources.layouts.layout import Layout


@dataclass(frozen=True)
class ModelNet40(Layout):
    """ModelNet40 (ModelNet10 too): CLASS/train/*.off and CLASS/test/*.off, or ply_data_train0.h5 and so on in FOLDER.

    Of meshes points are drawn once, uniformly by area. HDF5 files hold data (N, 2048, 3) and label (N, 1), and
    shape_names.txt the classes; they need h5py.

    Example: perceiver data build modelnet40 ModelNet40 data/modelnet40
    """

    name: ClassVar[str] = "modelnet40"
    # As many as its HDF5 files have: both ways of handing it out give clouds of one size.
    num_points: int = field(
        default=2_048, metadata={"help": "Points to sample from a mesh; 0 stores the mesh.", "min": 0}
    )

    def build(self, folder: Path, out: Path, **options: Unpack[BuildOptions]) -> Manifest:
        """Build shards of the clouds."""
        # As the archive is unpacked. Each class below would be a file of one class, which is the archive's name.
        if (inner := next(folder.glob("*/*/train"), None)) and not any(folder.glob("*/train")):
            raise ValueError(f"{folder}: the folders of its classes lie in {inner.parent.parent}; name that folder")
        return point_clouds.build(folder, out, num_points=self.num_points, **options)
