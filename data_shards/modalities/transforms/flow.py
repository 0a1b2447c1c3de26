"""Pairs of frames to uint8 (2, height, width, 3), and their motion to float32 (height, width, 2)."""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.flow import pair
from data_shards.modalities.flow import FlowConfig
from data_shards.modalities.modality import Members


def fit(
    members: Members, config: FlowConfig, rng: np.random.Generator | None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the frames and the motion, cut to the config's size: about the centre, in training anywhere.

    Nothing is resized, since motion is in pixels. Raises ValueError for frames that are smaller.
    """
    first, second, motion = pair(members, with_motion=bool(config.motion))
    spare_rows, spare_columns = first.shape[0] - config.height, first.shape[1] - config.width
    if min(spare_rows, spare_columns) < 0:
        raise ValueError(
            f"frames of {first.shape[0]} x {first.shape[1]} pixels are smaller than the {config.height} x "
            f"{config.width} that are cut from them; lower height and width of the input, or leave the pair out"
        )
    top, left = spare_rows // 2, spare_columns // 2
    if rng is not None:
        top, left = (int(rng.integers(spare, endpoint=True)) for spare in (spare_rows, spare_columns))
    window = slice(top, top + config.height), slice(left, left + config.width)
    frames, motion = np.stack([first[window], second[window]]), motion[window]
    if rng is not None and config.flip and rng.random() < 0.5:
        # What moved to the right moves to the left.
        frames, motion = frames[:, :, ::-1], motion[:, ::-1] * np.array([-1, 1], np.float32)
    return frames, motion
