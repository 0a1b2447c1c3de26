"""FlyingChairs, Sintel and KITTI: which frames and which motion become a pair, and which motion is unknown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_shards.modalities.decoding.flow import motion
from data_shards.modalities.decoding.image import pixels

Build = Callable[..., Any]
Put = Callable[..., Path]
Encode = Callable[..., bytes]


def frames(sample: dict[str, bytes]) -> tuple[int, int]:
    """The colours of the two frames."""
    first, second = (next(data for suffix, data in sample.items() if suffix.startswith(name)) for name in ("fi", "se"))
    return int(pixels(first)[0, 0, 0]), int(pixels(second)[0, 0, 0])


def chairs(put: Put, picture: Encode, flo: Encode, count: int = 3) -> None:
    for number in range(1, count + 1):
        put(f"data/{number:05d}_img1.ppm", picture(number, "PPM"))
        put(f"data/{number:05d}_img2.ppm", picture(100 + number, "PPM"))
        put(f"data/{number:05d}_flow.flo", flo(number, -number))


def test_flying_chairs_splits_are_those_of_the_list(build: Build, put: Put, picture: Encode, flo: Encode) -> None:
    chairs(put, picture, flo)
    put("FlyingChairs_train_val.txt", b"1\n2\n1\n")
    put("README.txt")
    built = build("flying-chairs")
    assert built.counts == {"train": 2, "val": 1}
    assert [frames(sample) for sample in built.samples()] == [(1, 101), (3, 103)]
    (held,) = built.samples("val")
    assert frames(held) == (2, 102)
    np.testing.assert_array_equal(motion(held["flo"])[0, 0], [2, -2])
    assert "splits: train 2 pairs, val 1 pair" in built.told
    assert "skipped, no pair of FlyingChairs: 1 .txt" in built.told


def test_flying_chairs_without_a_list_are_for_training(build: Build, put: Put, picture: Encode, flo: Encode) -> None:
    chairs(put, picture, flo)
    built = build("flying-chairs", "--test-share", 0.34)
    assert built.counts == {"train": 2, "test": 1}
    assert "no FlyingChairs_train_val.txt: all 3 pairs are for training" in built.told


def test_autoflows_pairs_are_those_of_its_folders(build: Build, put: Put, picture: Encode, flo: Encode) -> None:
    for number in range(3):
        place = f"static_40k_png_{1 + number % 2}_of_4/table_{number}_batch_0"
        put(f"{place}/im0.png", picture(number))
        put(f"{place}/im1.png", picture(100 + number))
        put(f"{place}/forward.flo", flo(number, -number))
    put("static_40k_png_4_of_4/table_9_batch_0/forward.flo", flo(0, 0))
    put("LICENSE.txt")
    built = build("autoflow", "--test-share", 0.34)
    assert built.counts == {"train": 2, "test": 1}
    for sample in (*built.samples(), *built.samples("test")):
        first, second = frames(sample)
        assert second == first + 100
        np.testing.assert_array_equal(motion(sample["flo"])[0, 0], [first, -first])
    assert "1 motion without im0.png or im1.png: skipped" in built.told
    assert "skipped, no pair of AutoFlow: 1 .txt" in built.told


def sintel(put: Put, picture: Encode, flo: Encode) -> None:
    for number in (1, 2, 3):
        for kind, colour in (("clean", 10), ("final", 20)):
            put(f"training/{kind}/alley_1/frame_{number:04d}.png", picture(colour + number))
            put(f"test/{kind}/cave_3/frame_{number:04d}.png", picture(0))
    for number in (1, 2):
        put(f"training/flow/alley_1/frame_{number:04d}.flo", flo(number, 0))


def test_sintels_passes_are_splits_and_invalid_motion_is_unknown(
    build: Build, put: Put, picture: Encode, flo: Encode
) -> None:
    sintel(put, picture, flo)
    mask = np.zeros((8, 12), np.uint8)
    mask[0, 0] = 255
    Image.fromarray(mask).save(put("training/invalid/alley_1/frame_0002.png"))
    put("training/occlusions/alley_1/frame_0001.png", picture(255))
    built = build("sintel")
    assert built.counts == {"clean": 2, "final": 2}
    assert [frames(sample) for sample in built.samples("clean")] == [(11, 12), (12, 13)]
    assert [frames(sample) for sample in built.samples("final")] == [(21, 22), (22, 23)]
    known, masked = (motion(sample["flo"]) for sample in built.samples("final"))
    assert (known == [1, 0]).all()
    assert np.isnan(masked[0, 0]).all()
    assert (masked[1:] == [2, 0]).all()
    assert "2 pairs in each of clean and final; 2 with a mask of invalid motion" in built.told
    # Six frames of the test, and a mask of what is hidden.
    assert "skipped, no pair with motion: 7 .png" in built.told


def test_sintel_can_be_trained_on(build: Build, put: Put, picture: Encode, flo: Encode) -> None:
    sintel(put, picture, flo)
    built = build("sintel", "--for-training", "--test-share", 0.25)
    assert built.counts == {"train": 3, "test": 1}


@pytest.mark.parametrize("folder", ["image_2", "colored_0", "image_0"])
def test_kittis_motion_is_read_from_png_of_16_bits(
    build: Build, put: Put, picture: Encode, deep_png: Encode, folder: str
) -> None:
    coded = np.zeros((8, 12, 3), np.uint16)
    coded[...] = (1 << 15) + 64 * 3 + 32, (1 << 15) - 64, 1
    coded[2, 3] = 0
    for number in (0, 1):
        put(f"training/{folder}/{number:06d}_10.png", picture(10 + number))
        put(f"training/{folder}/{number:06d}_11.png", picture(20 + number))
        put(f"training/flow_occ/{number:06d}_10.png", deep_png(coded))
    put("training/calib_cam_to_cam/000000.txt")
    put("testing/image_2/000000_10.png", picture(0))
    built = build("kitti", "--test-share", 0.5)
    assert built.counts == {"train": 1, "test": 1}
    (sample,) = built.samples()
    assert frames(sample) in ((10, 20), (11, 21))
    moved = motion(sample["motion.png"])
    assert np.isnan(moved[2, 3]).all()
    np.testing.assert_array_equal(moved[0, 0], [3.5, -1])
    assert "skipped, no pair with motion: 1 .png, 1 .txt" in built.told


def test_a_picture_of_8_bits_is_no_motion(picture: Encode) -> None:
    with pytest.raises(ValueError, match="three channels of 16 bits, got 3 of 8"):
        motion(picture(1))


@pytest.mark.parametrize(
    ("name", "files", "sentence"),
    [
        ("flying-chairs", ["a.txt"], r"no file NUMBER_flow.flo; name the folder FlyingChairs_release"),
        ("autoflow", ["a.txt"], r"no file forward.flo; name the folder that holds static_40k_png_1_of_4"),
        ("autoflow", ["t/forward.flo"], r"forward.flo: no im0.png and im1.png beside it; unpack all of AutoFlow"),
        ("sintel", ["training/clean/a/frame_0001.png"], r"training: has no folder final"),
        ("sintel", ["clean/a", "final/a", "flow/a"], r"flow: no SCENE/frame_NUMBER.flo"),
        ("kitti", ["training/flow_occ/000000_10.png"], r"no folder image_2 or colored_0 or image_0"),
        ("kitti", ["training/image_2/000000_10.png"], r"no folder flow_occ"),
        ("kitti", ["training/image_2/a.png", "training/flow_occ/a.png"], r"flow_occ: no NUMBER_10.png"),
    ],
)
def test_a_missing_piece_is_refused(build: Build, put: Put, name: str, files: list[str], sentence: str) -> None:
    for file in files:
        put(file)
    with pytest.raises(ValueError, match=sentence):
        build(name)


@pytest.mark.parametrize(
    ("marks", "sentence"),
    [(b"1\n2\n", "is for 2 pairs, and 3 are there"), (b"1\n2\n3\n", r"line 3: expected 1 \(train\) or 2 \(val\)")],
)
def test_a_list_of_other_pairs_is_refused(
    build: Build, put: Put, picture: Encode, flo: Encode, marks: bytes, sentence: str
) -> None:
    chairs(put, picture, flo)
    put("FlyingChairs_train_val.txt", marks)
    with pytest.raises(ValueError, match=sentence):
        build("flying-chairs")


def test_a_pair_without_its_second_frame_is_a_bad_row(build: Build, put: Put, picture: Encode, flo: Encode) -> None:
    chairs(put, picture, flo)
    put("data/00002_img2.ppm").unlink()
    with pytest.raises(ValueError, match=r"line 2: .*00002_img2\.ppm: No such file"):
        build("flying-chairs")
    built = build("flying-chairs", "--max-bad", 1)
    assert built.counts == {"train": 2}
    assert "left out, 1 bad sample:" in built.told
