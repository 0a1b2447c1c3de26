"""Pairs of frames to uint8 (2, height, width, 3), and their motion to float32 (height, width, 2).

training   reverse --> scale --> cut anywhere --> colour --> erase --> mirror     the motion with the frames
evaluation cut about the centre
"""

import numpy as np
from numpy.typing import NDArray

from data_shards.modalities.decoding.flow import pair
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.modality import Members
from data_shards.modalities.transform_config import EraseConfig, ScaleConfig
from data_shards.modalities.transforms.colour import jitter
from data_shards.modalities.transforms.framing import resize

Frames = NDArray[np.uint8]
Motion = NDArray[np.float32]


def fit(members: Members, config: FlowConfig, rng: np.random.Generator | None) -> tuple[Frames, Motion]:
    """Return the frames and the motion in the config's size; of a longer one the centre, in training varied at random.

    Raises ValueError for frames that are smaller.
    """
    first, second, motion = pair(members, needs_motion=config.needs_motion)
    spare_rows, spare_columns = first.shape[0] - config.height, first.shape[1] - config.width
    if min(spare_rows, spare_columns) < 0:
        raise ValueError(
            f"frames of {first.shape[0]} x {first.shape[1]} pixels are smaller than the {config.height} x "
            f"{config.width} that are cut from them; lower height and width of the input, or leave the pair out"
        )
    if rng is None:
        return _window(first, second, motion, config, spare_rows // 2, spare_columns // 2)
    if config.reverse and rng.random() < config.reverse:
        first, second, motion = second, first, _turned(motion)
    grown = _grown(config.scale, rng) if config.scale else None
    if grown is None:
        top, left = (int(rng.integers(spare, endpoint=True)) for spare in (spare_rows, spare_columns))
        frames, motion = _window(first, second, motion, config, top, left)
    else:
        frames, motion = _scaled(first, second, motion, config, grown, rng)
    return _varied(frames, motion, config, rng)


def _turned(motion: Motion) -> Motion:
    """Return the motion from the second frame to the first, at the pixels of the second one.

    Each pixel's motion is turned round where it leads, to the nearest pixel. It is unknown where none leads, and where
    several do whose motions differ by more than a pixel: which of them is in front nobody says.
    """
    height, width = motion.shape[:2]
    rows, columns = np.nonzero(np.isfinite(motion).all(axis=-1))
    back = -motion[rows, columns]
    places = np.rint(np.stack([columns, rows], axis=-1) - back)
    is_inside = ((places >= 0) & (places < (width, height))).all(axis=-1)
    right, down = places[is_inside].astype(np.int64).T
    least = np.full((height * width, 2), np.inf, np.float32)
    greatest = -least
    # at: several pixels may lead to one place, and plain indexing would keep the last of them.
    np.minimum.at(least, down * width + right, back[is_inside])
    np.maximum.at(greatest, down * width + right, back[is_inside])
    turned = np.full_like(least, np.nan)
    is_known = ((least <= greatest) & (greatest <= least + 1)).all(axis=-1)
    turned[is_known] = (least[is_known] + greatest[is_known]) / 2
    return turned.reshape(motion.shape)


def _window(
    first: Frames, second: Frames, motion: Motion, config: FlowConfig, top: int, left: int
) -> tuple[Frames, Motion]:
    window = slice(top, top + config.height), slice(left, left + config.width)
    return np.stack([first[window], second[window]]), motion[window]


def _grown(config: ScaleConfig, rng: np.random.Generator) -> tuple[float, float] | None:
    """Return by how much rows and columns grow; None for a pair that keeps its size."""
    if rng.random() >= config.probability:
        return None
    # Drawn as an exponent: a pair is halved as often as it is doubled.
    powers = np.full(2, rng.uniform(config.min_power, config.max_power))
    if rng.random() < config.stretch_probability:
        powers += rng.uniform(-config.max_stretch_power, config.max_stretch_power, 2)
    rows, columns = (2.0**powers).tolist()
    return rows, columns


def _scaled(
    first: Frames,
    second: Frames,
    motion: Motion,
    config: FlowConfig,
    grown: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Frames, Motion]:
    """Return a part that has the config's size after the pair has grown; the motion grows with it."""
    sides, wanted = first.shape[:2], (config.height, config.width)
    # No smaller than what is cut.
    rows, columns = (max(by, want / side) for by, want, side in zip(grown, wanted, sides, strict=True))
    height, width = config.height / rows, config.width / columns
    top, left = (rng.uniform(0, max(0.0, side - part)) for side, part in zip(sides, (height, width), strict=True))
    box = left, top, min(left + width, sides[1]), min(top + height, sides[0])
    # Only the part is resized. What is unknown of the motion stays so, and its neighbours become it.
    parts = [resize(values, box, config.height, config.width, "bilinear") for values in (first, second, motion)]
    frames = np.stack([np.asarray(part, np.uint8) for part in parts[:2]])
    return frames, np.asarray(parts[2], np.float32) * np.array([columns, rows], np.float32)


def _varied(frames: Frames, motion: Motion, config: FlowConfig, rng: np.random.Generator) -> tuple[Frames, Motion]:
    if config.colour is not None:
        if rng.random() < config.unequal_colour:
            coloured = np.concatenate([jitter(frame[None], config.colour, rng) for frame in frames])
        else:
            coloured = jitter(frames, config.colour, rng)
        frames = np.asarray(coloured, np.uint8)
    if config.erase is not None and rng.random() < config.erase.probability:
        frames = _erased(frames, config.erase, rng)
    if config.flip and rng.random() < 0.5:
        # What moved to the right moves to the left.
        frames, motion = frames[:, :, ::-1], motion[:, ::-1] * np.array([-1, 1], np.float32)
    if config.upside_down and rng.random() < config.upside_down:
        frames, motion = frames[:, ::-1], motion[::-1] * np.array([1, -1], np.float32)
    return frames, motion


def _erased(frames: Frames, config: EraseConfig, rng: np.random.Generator) -> Frames:
    """Return the frames with one or two rectangles of the second one in its mean colour; the motion stays."""
    frames = frames.copy()
    second = frames[1]
    mean = second.mean(axis=(0, 1)).astype(np.uint8)
    # As RAFT's training has it (arXiv 2003.12039), which that on AutoFlow follows: what is hidden must still be found.
    for _ in range(int(rng.integers(1, 2, endpoint=True))):
        top, left = (int(rng.integers(side)) for side in second.shape[:2])
        height, width = rng.integers(config.min_side, config.max_side, size=2, endpoint=True).tolist()
        second[top : top + height, left : left + width] = mean
    return frames
