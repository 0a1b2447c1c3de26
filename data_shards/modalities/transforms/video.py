"""Clips to uint8 (num_frames, height, width, 3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.video import video
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transforms.colour import jitter
from data_shards.modalities.transforms.framing import framed, random_box, usual_box


def fit(
    data: bytes | memoryview, config: VideoConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.uint8], int, bool]:
    """Return frames of the clip, resized, in training varied at random; a short clip is padded with frames of zeros.

    With their number, and whether the clip is longer.
    """
    available = 0

    def choose(num_frames: int) -> Sequence[int]:
        nonlocal available
        available = num_frames
        return _choose(num_frames, config, rng)

    frames = video(data, choose)
    # One box for the clip: drawn for each frame, the picture would jump.
    box = random_box(frames[0], config.crop, rng) if rng is not None and config.crop else None
    if box is None:
        box = usual_box(frames[0], config)
    clip = np.zeros(config.shape, np.uint8)
    for place, frame in zip(clip, frames, strict=False):
        place[:] = framed(frame, box, config)
    num_frames = len(frames)
    if rng is not None and config.flip and rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    if rng is not None and config.colour:
        clip = clip.copy()
        clip[:num_frames] = jitter(clip[:num_frames], config.colour, rng)
    return clip, num_frames, -(-available // (config.frame_step or 1)) > num_frames


def _choose(available: int, config: VideoConfig, rng: np.random.Generator | None) -> Sequence[int]:
    if config.frame_step:
        return _run(available, config, rng)
    return _spread(available, config.num_frames, rng)


def _run(available: int, config: VideoConfig, rng: np.random.Generator | None) -> Sequence[int]:
    """Return every `frame_step`th frame of a stretch: where the config says, else the middle one, in training any."""
    step = config.frame_step
    num_frames = min(config.num_frames, -(-available // step))
    # Frames that remain beside the stretch: it may begin at any of them.
    spare = available - 1 - (num_frames - 1) * step
    if config.place is not None:
        start = round(config.place * spare)
    else:
        start = spare // 2 if rng is None else int(rng.integers(spare, endpoint=True))
    return range(start, start + num_frames * step, step)


def _spread(available: int, wanted: int, rng: np.random.Generator | None) -> Sequence[int]:
    """Return a frame of each of `wanted` equal parts of the clip: the middle one, in training a random one."""
    if available <= wanted:
        return range(available)
    # One random place in each part: a clip keeps its order and its length in time.
    within = np.full(wanted, 0.5) if rng is None else rng.random(wanted)
    places: list[int] = ((np.arange(wanted) + within) * available / wanted).astype(int).tolist()
    return places
