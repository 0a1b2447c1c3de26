"""What downloads, unpacking and other systems leave beside a data set: nothing of it becomes a sample in silence."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import File, Row
from data_shards.sources.layouts.flying_chairs import FlyingChairs
from data_shards.sources.layouts.glue import Glue
from data_shards.sources.layouts.imagenet import ImageNet
from data_shards.sources.layouts.kitti import Kitti
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.layouts.modelnet40 import ModelNet40
from data_shards.sources.layouts.sintel import Masked, Sintel
from data_shards.sources.parsing import plain_text

Put = Callable[..., Path]
Flo = Callable[..., bytes]
CHAIRS = [f"data/00001_{end}" for end in ("img1.ppm", "img2.ppm", "flow.flo")]
SCENE = "training/{}/a/frame_000{}.{}"
SINTEL = [SCENE.format(name, number, "png") for name in ("clean", "final") for number in (1, 2)]
KITTI = [f"training/image_2/000000_1{number}.png" for number in (0, 1)]


@pytest.mark.parametrize(
    ("layout", "names", "num_rows"),
    [
        (FlyingChairs(), [*CHAIRS, "data/._00001_flow.flo", "__MACOSX/data/00001_flow.flo"], 1),
        (Sintel(), [*SINTEL, SCENE.format("flow", 1, "flo"), "training/flow/a/._frame_0001.flo"], 2),
        (Kitti(), [*KITTI, "training/flow_occ/000000_10.png", "training/flow_occ/._000000_10.png"], 1),
    ],
)
def test_a_hidden_motion_is_no_pair(
    tmp_path: Path, put: Put, layout: TableLayout, names: Sequence[str], num_rows: int
) -> None:
    for name in names:
        put(name)
    told: list[str] = []
    assert len(layout.read(tmp_path / "raw", told.append).rows) == num_rows
    assert "hidden" in told[-1]


def test_a_synset_that_is_packed_and_unpacked_is_refused(tmp_path: Path, put: Put) -> None:
    put("train/n01440764.tar")
    put("train/n01440764/a.JPEG")
    with pytest.raises(ValueError, match=r"n01440764\.tar: is unpacked beside it, in n01440764/; remove the one that"):
        ImageNet().read(tmp_path / "raw", lambda _: None)


def test_of_a_tar_and_its_folder_the_one_that_is_not_read_is_named(tmp_path: Path, put: Put) -> None:
    put("train/n01440764/a.JPEG")
    tar = put("ILSVRC2012_img_val.tar", b"\0" * 1024)
    put("val/n01440764/b.JPEG")
    told: list[str] = []
    ImageNet().read(tmp_path / "raw", told.append)
    assert told[0] == f"{tar} is read, and {tmp_path / 'raw' / 'val'}, which is there too, is not"


def test_a_task_in_two_folders_is_refused(tmp_path: Path, put: Put) -> None:
    put("CoLA/train.tsv")
    put("cola/train.tsv")
    with pytest.raises(ValueError, match="CoLA and cola are both the task cola; move one elsewhere"):
        Glue().read(tmp_path / "raw", lambda _: None)


@pytest.mark.parametrize(("first", "second"), [("a.json", "a.json.gz"), ("wiki_00.bz2", "wiki_00"), ("a.gz", "a.XZ")])
def test_a_text_that_is_packed_and_unpacked_is_refused(first: str, second: str) -> None:
    plain_text.refuse_unpacked_twins([Path("x") / first, Path("y") / second, Path("x/b.json.gz")])
    with pytest.raises(ValueError, match=rf"x/{second}: is there twice, also as {first}; move one"):
        plain_text.refuse_unpacked_twins([Path("x") / first, Path("x") / second])


def test_an_empty_file_with_the_name_of_a_compressed_one_is_refused(put: Put) -> None:
    with pytest.raises(ValueError, match="is empty, and nothing compressed is; copy the file again"):
        list(plain_text.blocks(put("a.json.gz")))
    assert list(plain_text.blocks(put("a.json"))) == []
    assert list(plain_text.blocks(put("b.json.gz", gzip.compress(b"")))) == []


def test_the_folder_above_modelnet40_is_refused(tmp_path: Path, put: Put) -> None:
    put("ModelNet40/chair/train/chair_0001.off")
    with pytest.raises(ValueError, match=r"the folders of its classes lie in .*raw/ModelNet40; name that folder"):
        ModelNet40().build(tmp_path / "raw", tmp_path / "out")


def test_a_broken_mask_is_named_and_not_its_motion(put: Put, flo: Flo) -> None:
    masked = Masked(str(put("a.flo", flo(1, 2))), str(put("mask.png", b"x")))
    with pytest.raises(ValueError, match=r"its mask .*mask\.png: not an image"):
        masked.read()


def test_a_build_of_bad_samples_alone_is_refused(tmp_path: Path, put: Put) -> None:
    rows = [Row(1, (File(str(put("a.png", b"no"))),))]
    with pytest.raises(ValueError, match=r"(?s)no sample is left of 1:.*line 1: .*a\.png: not an image"):
        build_table(rows, tmp_path / "out", max_bad=1)
    assert not (tmp_path / "out" / "manifest.json").exists()
