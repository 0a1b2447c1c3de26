"""Encoded video to frames, through PyAV."""

import io
from collections.abc import Callable, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from data_shards.decoders.image import MAX_PIXELS

MAX_CLIP_BYTES = 1 << 30
"""A clip of more decoded bytes is refused: ask for fewer frames of it."""


def video(data: bytes | memoryview, choose: Callable[[int], Sequence[int]] | None = None) -> NDArray[np.uint8]:
    """Return frames of the clip as uint8, shape (T, H, W, 3), red first.

    `choose` is given the number of frames in the file and returns, ascending, those to keep (all by default). Only
    these are converted to RGB, and nothing is decoded after the last. Raises ValueError where the bytes are not a
    video, or where it has fewer frames than it claims.
    """
    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = _checked_stream(container)
            # Demuxed once, to count the frames and to decode them: opening a small clip twice costs as much as that.
            packets = list(container.demux(stream))
            num_frames = _count_frames(packets, stream)
            return _frames(packets, range(num_frames) if choose is None else choose(num_frames))
    except av.FFmpegError as error:
        raise ValueError(f"corrupt video ({error.strerror})") from error


def _checked_stream(container: InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise ValueError("file without a video stream")
    stream = container.streams.video[0]
    if not hasattr(stream, "width"):
        raise ValueError("video of an unknown codec")
    if stream.width * stream.height > MAX_PIXELS:
        raise ValueError(f"video claims {stream.width} x {stream.height} pixels; at most {MAX_PIXELS} are decoded")
    # The loader's threads are enough.
    stream.thread_count = 1
    return stream


def _count_frames(packets: Sequence["av.Packet[av.VideoStream]"], stream: av.VideoStream) -> int:
    """Return the number of coded frames, counted: the number in the header may be missing or a lie."""
    counted = sum(packet.size > 0 for packet in packets)
    if counted < stream.frames:
        raise ValueError(f"video claims {stream.frames} frames, {counted} are there")
    if not counted:
        raise ValueError("video of 0 frames")
    return counted


def _frames(packets: Sequence["av.Packet[av.VideoStream]"], wanted: Sequence[int]) -> NDArray[np.uint8]:
    kept: list[NDArray[np.uint8]] = []
    # One for all frames of the clip: making one a frame takes three times as long (28 against 10 ms for 64 frames).
    reformatter = VideoReformatter()
    number = -1
    for number, frame in enumerate(frame for packet in packets for frame in packet.decode()):
        if number == wanted[len(kept)]:
            rgb = reformatter.reformat(frame, format="rgb24").to_ndarray()
            kept.append(rgb.astype(np.uint8, copy=False))
            if len(kept) * kept[0].nbytes > MAX_CLIP_BYTES:
                raise ValueError(f"clip of more than {MAX_CLIP_BYTES} decoded bytes; cut it into shorter ones")
            if len(kept) == len(wanted):
                return np.stack(kept)
    raise ValueError(f"video claims at least {wanted[-1] + 1} frames, {number + 1} could be decoded")
