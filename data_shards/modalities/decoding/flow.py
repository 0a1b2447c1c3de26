"""Pairs of frames and the motion between them."""

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import counted
from data_shards.modalities.decoding.image import MAX_PIXELS, PNG, picture, pixels
from data_shards.modalities.kinds.flow import MOTION, SECOND
from data_shards.modalities.modality import MAIN, Members

MAGIC = np.float32(202021.25).tobytes()
"""First bytes of a .flo file."""
UNKNOWN = 1e9
"""The format's motion of a pixel whose motion is not known, or more."""
FLO_HEADER_BYTES = 12
"""Bytes of a .flo file before its motion."""
_PNG_ZERO, _PNG_STEPS = 1 << 15, 64
"""The number that stands for no motion in KITTI's PNG, and the steps of a pixel."""


def motion(data: bytes | memoryview) -> NDArray[np.float32]:
    """Return the motion of a .flo file or of KITTI's PNG as float32 (H, W, 2): right and down, NaN where unknown.

    Middlebury's .flo is a magic number, width and height (int32), then the motion row by row, all little-endian
    (vision.middlebury.edu/flow/code/flow-code/README.txt).
    """
    if bytes(data[:8]) == PNG:
        return _of_png(data)
    if len(data) < FLO_HEADER_BYTES or bytes(data[:4]) != MAGIC:
        raise ValueError("not a .flo file: it does not begin with PIEH, and is no PNG of motion either")
    width, height = np.frombuffer(data, "<i4", 2, offset=4).tolist()
    # Before memory is taken: a header of twelve bytes may claim anything.
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise ValueError(f"claims the motion of {width} x {height} pixels; from 1 to {MAX_PIXELS} are decoded")
    # Neither less nor more: two concatenated files are no motion.
    expected = FLO_HEADER_BYTES + 8 * width * height
    if len(data) != expected:
        raise ValueError(f"corrupt motion ({counted(len(data), 'byte')}, {expected} for {width} x {height} pixels)")
    moved = np.frombuffer(data, "<f4", offset=FLO_HEADER_BYTES).reshape(height, width, 2).astype(np.float32)
    # By what is less: NaN, which other programs write for unknown, fails this comparison, too.
    moved[~(np.abs(moved) < UNKNOWN).all(axis=-1)] = np.nan
    return moved


def _of_png(data: bytes | memoryview) -> NDArray[np.float32]:
    """Return the motion of KITTI's PNG: in 16 bits motion * 64 + 2^15 right and down, and whether it is known."""
    values = picture(data).values
    if values.dtype != np.uint16 or values.shape[-1] != 3:
        raise ValueError(
            f"a PNG of motion has three channels of 16 bits, got {values.shape[-1]} of {8 * values.itemsize}"
        )
    moved = (values[..., :2].astype(np.float32) - _PNG_ZERO) / np.float32(_PNG_STEPS)
    moved[values[..., 2] == 0] = np.nan
    return moved


def pair(
    members: Members, *, needs_motion: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Return first and second frame, uint8 (H, W, 3), and the motion between them, (H, W, 2), of a sample's members.

    Of a pair that is without and does not need it all of the motion is unknown.
    """
    needed = {SECOND: "second frame"} | ({MOTION: "motion"} if needs_motion else {})
    if missing := [what for role, what in needed.items() if role not in members]:
        raise ValueError(f"a pair of frames is without its {missing[0]}")
    first, second = members[MAIN].decoded(pixels), members[SECOND].decoded(pixels)
    unknown = np.full((*first.shape[:2], 2), np.nan, np.float32)
    moved = members[MOTION].decoded(motion) if MOTION in members else unknown
    if not first.shape[:2] == second.shape[:2] == moved.shape[:2]:
        sizes = ", ".join(f"{height} x {width}" for height, width in (a.shape[:2] for a in (first, second, moved)))
        raise ValueError(f"first frame, second frame and motion of a pair must be of one size, got {sizes}")
    return first, second, moved
