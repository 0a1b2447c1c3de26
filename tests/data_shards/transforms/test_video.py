"""Which frames of a clip are read: spread over it, or a step apart from where the section says."""

import io

import av
import numpy as np
import pytest

from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import CropConfig
from data_shards.modalities.transforms.video import fit

NUM_FRAMES = 12


def clip() -> bytes:
    """Twelve frames, each of one grey, twenty steps brighter than the one before."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 10 + 20 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


CLIP = clip()


def read(rng: np.random.Generator | None = None, **fields: object) -> tuple[list[int], int, bool]:
    """The numbers of the frames, -1 of one of zeros, how many are there, and whether the clip is longer."""
    section = VideoConfig(height=16, width=16, **fields)  # type: ignore[arg-type]  # any key
    frames, length, is_cut = fit(CLIP, section, rng)
    numbers = np.rint((frames.mean(axis=(1, 2, 3)) - 10) / 20).astype(int)
    return np.where(frames.any(axis=(1, 2, 3)), numbers, -1).tolist(), length, is_cut


@pytest.mark.parametrize(
    ("num_frames", "step", "place", "expected"),
    [
        (4, 0, None, ([1, 4, 7, 10], 4, True)),
        (5, 0, None, ([1, 3, 6, 8, 10], 5, True)),
        (11, 0, None, ([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11], 11, True)),
        (12, 0, None, (list(range(12)), 12, False)),
        (13, 0, None, ([*range(12), -1], 12, False)),
        (4, 1, None, ([4, 5, 6, 7], 4, True)),
        (4, 1, 0.0, ([0, 1, 2, 3], 4, True)),
        (4, 1, 0.3, ([2, 3, 4, 5], 4, True)),
        (4, 1, 1.0, ([8, 9, 10, 11], 4, True)),
        (2, 4, None, ([3, 7], 2, True)),
        # As many as there are at that step.
        (4, 3, None, ([1, 4, 7, 10], 4, False)),
        (3, 5, None, ([0, 5, 10], 3, False)),
        (4, 5, None, ([0, 5, 10, -1], 3, False)),
        (4, 5, 1.0, ([1, 6, 11, -1], 3, False)),
        (2, 11, None, ([0, 11], 2, False)),
        (2, 12, None, ([5, -1], 1, False)),
    ],
)
def test_an_evaluation_always_reads_the_same_frames(
    num_frames: int, step: int, place: float | None, expected: tuple[list[int], int, bool]
) -> None:
    assert read(num_frames=num_frames, frame_step=step, place=place) == expected


@pytest.mark.parametrize(
    ("num_frames", "step", "place", "firsts"),
    [
        (4, 1, None, set(range(9))),
        (4, 3, None, {0, 1, 2}),
        (12, 1, None, {0}),
        (4, 1, 1.0, {8}),
    ],
)
def test_training_begins_anywhere_unless_the_section_says_where(
    num_frames: int, step: int, place: float | None, firsts: set[int]
) -> None:
    found = [
        read(np.random.default_rng(seed), num_frames=num_frames, frame_step=step, place=place) for seed in range(50)
    ]
    assert {frames[0] for frames, *_ in found} == firsts
    for frames, length, _ in found:
        assert length == num_frames
        assert set(np.diff(frames).tolist()) == {step}


def test_training_reads_any_frame_of_each_part() -> None:
    found = np.array([read(np.random.default_rng(seed), num_frames=4)[0] for seed in range(50)])
    for part in range(4):
        assert set(found[:, part].tolist()) == {3 * part, 3 * part + 1, 3 * part + 2}


def test_every_second_clip_is_mirrored_and_one_frame_may_be_cut() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        picture = np.zeros((16, 32, 3), np.uint8)
        picture[:, :16] = 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    section = VideoConfig(num_frames=1, height=16, width=32, flip=True, fit="stretch")
    bright_left = [
        float(fit(file.getvalue(), section, np.random.default_rng(seed))[0][0, :, :16].mean()) > 100
        for seed in range(40)
    ]
    # Four standard deviations of a fair coin thrown 40 times.
    assert abs(sum(bright_left) - 20) < 13
    part = VideoConfig(num_frames=1, height=8, width=8, crop=CropConfig())
    assert fit(file.getvalue(), part, np.random.default_rng(0))[1] == 1
