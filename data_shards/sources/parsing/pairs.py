"""Pairs of frames and the motion between them as the members of a sample."""

from data_shards.building.raw_sample import Content, File, NamedFile

PNG = ".png"


def pair(first: str, second: str, motion: str) -> tuple[Content, ...]:
    """Return the members of a pair: two frames, and their motion as .flo or as KITTI's PNG."""
    # By the name alone a PNG would be a picture.
    moved = NamedFile(motion, "motion") if motion.lower().endswith(PNG) else File(motion)
    return NamedFile(first, "first"), NamedFile(second, "second"), moved
