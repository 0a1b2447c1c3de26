"""The sizes of a section that suit samples, kind by kind."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from data_shards.modalities.fitting import longest, side
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.label import LabelConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig


@pytest.mark.parametrize(
    ("lengths", "most", "expected"),
    [
        ([0], 100, 1),
        ([1], 100, 1),
        ([7], 100, 7),
        ([8], 100, 8),
        ([11], 100, 8),
        ([12], 100, 12),
        ([31], 100, 28),
        ([32], 100, 32),
        ([39], 100, 32),
        ([40], 100, 40),
        ([127], 1000, 120),
        ([128], 1000, 128),
        ([159], 1000, 128),
        ([160], 1000, 160),
        ([500], 224, 224),
        ([500], 100, 96),
        # One huge sample enlarges no other.
        ([3, 5, 100_000], 1000, 5),
        ([4, 7], 1000, 5),
    ],
)
def test_a_side_is_the_median_down_to_what_patches_divide(lengths: list[int], most: int, expected: int) -> None:
    assert side(lengths, most) == expected


@pytest.mark.parametrize(
    ("lengths", "most", "step", "expected"),
    [
        (list(range(1, 11)), 100, 4, 12),
        ([16], 100, 16, 16),
        ([17], 100, 16, 32),
        ([99], 100, 16, 100),
        ([0], 100, 16, 16),
        ([0], 100, 1, 1),
        ([50] * 20 + [1_000], 10_000, 1, 50),
    ],
)
def test_the_longest_is_up_to_what_patches_divide_and_holds_nine_of_ten(
    lengths: list[int], most: int, step: int, expected: int
) -> None:
    assert longest(lengths, most, step) == expected


def picture(height: int, width: int, channels: int, dtype: str = "uint8") -> bytes:
    file = io.BytesIO()
    values = np.zeros((height, width, channels), dtype)
    if channels > 4 or dtype != "uint8":
        tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
    else:
        Image.fromarray(values[..., 0] if channels == 1 else values).save(file, "PNG")
    return file.getvalue()


def npy(*shape: int, fill: float = 1.0) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full(shape, fill, np.float32))
    return file.getvalue()


def wav(num_samples: int, rate: int, channels: int = 1) -> bytes:
    head = struct.pack("<HHIIHH", 3, channels, rate, 4 * channels * rate, 4 * channels, 32)
    payload = bytes(4 * channels * num_samples)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", len(payload)) + payload


def ply(num_points: int, *names: str) -> bytes:
    head = "".join(f"property float {name}\n" for name in ("x", "y", "z", *names))
    lines = "".join(" ".join(["1"] * (3 + len(names))) + "\n" for _ in range(num_points))
    return f"ply\nformat ascii 1.0\nelement vertex {num_points}\n{head}end_header\n{lines}".encode()


def mp4(num_frames: int, height: int, width: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for _ in range(num_frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("contents", "sizes"),
    [
        ([picture(7, 500, 3), picture(6, 500, 3), picture(7, 1, 3)], {"height": 7, "width": 224, "num_channels": 3}),
        ([picture(5, 5, 1)], {"height": 5, "width": 5, "num_channels": 1}),
        ([picture(5, 5, 1), picture(5, 5, 2)], {"height": 5, "width": 5, "num_channels": 1}),
        ([picture(5, 5, 1), picture(5, 5, 3)], {"height": 5, "width": 5, "num_channels": 3}),
        ([picture(5, 5, 4)], {"height": 5, "width": 5, "num_channels": 3}),
        ([picture(5, 5, 5)], {"height": 5, "width": 5, "num_channels": 5}),
        (
            [picture(5, 5, 3, "uint16"), picture(5, 5, 3)],
            {"height": 5, "width": 5, "num_channels": 3, "values": "unit"},
        ),
        (
            [picture(5, 5, 6, "float32"), picture(5, 5, 6, "uint8")],
            {"height": 5, "width": 5, "num_channels": 6, "values": "raw"},
        ),
    ],
)
def test_images_have_their_sides_channels_and_numbers(contents: Sequence[bytes], sizes: dict[str, Any]) -> None:
    assert ImageConfig.fitted(contents) == sizes


@pytest.mark.parametrize(
    ("contents", "sizes"),
    [
        ([wav(100, 8_000)], {"sample_rate": 8_000, "num_samples": 112}),
        ([wav(100, 8_000, 2)], {"sample_rate": 8_000, "num_samples": 112, "num_channels": 2}),
        ([wav(100, 8_000, 2), wav(100, 8_000)], {"sample_rate": 8_000, "num_samples": 112}),
        # The commonest rate; of two as common ones the higher; lengths at that rate.
        ([wav(96, 8_000), wav(96, 8_000), wav(192, 16_000)], {"sample_rate": 8_000, "num_samples": 96}),
        ([wav(96, 8_000), wav(192, 16_000)], {"sample_rate": 16_000, "num_samples": 192}),
        ([wav(16_383, 8_000)], {"sample_rate": 8_000, "num_samples": 16_384}),
        ([wav(16_384, 8_000), wav(16_385, 8_000)], {"sample_rate": 8_000, "num_samples": 16_384}),
        # Its step is that of the longest, though most are shorter.
        ([wav(10_000, 8_000)] * 10 + [wav(16_384, 8_000)], {"sample_rate": 8_000, "num_samples": 10_240}),
        ([wav(10_000, 8_000)] * 10 + [wav(16_383, 8_000)], {"sample_rate": 8_000, "num_samples": 10_000}),
        ([wav(16_386, 8_000)], {"sample_rate": 8_000, "num_samples": 17_408}),
        ([wav(600_000, 8_000)], {"sample_rate": 8_000, "num_samples": 524_288}),
    ],
)
def test_recordings_have_a_rate_and_a_length_at_it(contents: Sequence[bytes], sizes: dict[str, Any]) -> None:
    assert AudioConfig.fitted(contents) == sizes


@pytest.mark.parametrize(
    ("contents", "sizes"),
    [
        ([ply(5), ply(7), ply(6)], {"num_points": 6, "normalize": "unit_cube"}),
        ([npy(5, 2)], {"num_points": 5, "num_dimensions": 2}),
        ([npy(5, 3)], {"num_points": 5, "normalize": "unit_cube"}),
        ([npy(5, 6), npy(5, 5)], {"num_points": 5, "num_features": 2, "normalize": "unit_cube"}),
        ([npy(3_000, 3)], {"num_points": 2_048, "normalize": "unit_cube"}),
        (
            [ply(5, "red", "nx", "q"), ply(5, "q", "red")],
            {"num_points": 5, "features": ["red", "q"], "normalize": "unit_cube"},
        ),
        ([ply(5, "red"), npy(5, 5)], {"num_points": 5, "num_features": 1, "normalize": "unit_cube"}),
    ],
)
def test_clouds_have_the_features_that_all_have(contents: Sequence[bytes], sizes: dict[str, Any]) -> None:
    assert PointsConfig.fitted(contents) == sizes


@pytest.mark.parametrize(
    ("contents", "sizes"),
    [
        ([npy(5, 3), npy(7, 3), npy(6, 3)], {"shape": [6, 3], "standardize": True}),
        ([npy(5_000, 3)], {"shape": [2_048, 3], "standardize": True}),
        ([npy(5)], {"shape": [5], "axes": ["place"], "standardize": True}),
        ([npy(5, 2, 3)], {"shape": [5, 2, 3], "standardize": True}),
        ([npy(1, 1), npy(2, 1)], {"shape": [1, 1]}),
        ([npy(2, 1), npy(2, 1, fill=np.nan)], {"shape": [2, 1], "nan": "zero", "standardize": True}),
    ],
)
def test_arrays_have_the_length_of_most_and_the_other_axes_of_all(
    contents: Sequence[bytes], sizes: dict[str, Any]
) -> None:
    assert ArrayConfig.fitted(contents) == sizes


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ([npy(5, 3), npy(5, 4)], r"arrays of 2 shapes, such as \(5, 3\) and \(5, 4\)"),
        ([npy(5, 3, 1), npy(5, 4, 1)], "arrays of 2 shapes"),
        ([npy(), npy()], "single numbers, which are no arrays"),
        ([npy(5, 3, fill=np.nan), npy(5, 3, fill=np.inf)], "not one finite value"),
    ],
)
def test_arrays_that_are_none_of_one_input_are_refused(contents: Sequence[bytes], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ArrayConfig.fitted(contents)


def test_the_other_kinds_have_their_sizes() -> None:
    assert TextConfig.fitted([b"x" * 17, b""]) == {"num_bytes": 16}
    assert TextConfig.fitted([b"x" * 5_000]) == {"num_bytes": 1_024}
    clips = [mp4(2, 16, 32), mp4(4, 48, 32), mp4(3, 32, 160)]
    assert VideoConfig.fitted(clips) == {"num_frames": 3, "height": 32, "width": 32}
    assert VideoConfig.fitted([mp4(20, 160, 160)]) == {"num_frames": 16, "height": 112, "width": 112}
    # The smallest pair decides.
    assert FlowConfig.fitted([picture(9, 300, 3), picture(300, 10, 3)]) == {"height": 8, "width": 8}
    assert FlowConfig.fitted([picture(300, 300, 3)]) == {"height": 192, "width": 256}
    assert LabelConfig.fitted([b"1"]) == {}
