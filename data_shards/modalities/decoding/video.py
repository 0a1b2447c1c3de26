"""Encoded video to frames, through PyAV: the frames that a player shows, upright."""

import io
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import BinaryIO, NoReturn

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from data_shards.files.quoting import counted
from data_shards.modalities.decoding.formats import mp4
from data_shards.modalities.decoding.image import MAX_PIXELS

MAX_CLIP_BYTES = 1 << 30
"""A clip of more decoded bytes is refused, as is one of more coded ones: ask for fewer frames of it."""
MAX_DECODED_PIXELS = 1 << 34
"""Decoding ends at so many pixels of all frames, kept or skipped: 8000 of 1080 lines."""
_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx"})
"""Any of them may come first in an MP4 or QuickTime file."""
_OPTIONS = MappingProxyType({"protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)})
"""Options of the demuxer, and of the decoders that it uses to complete a header."""
Packets = Sequence["av.Packet[av.VideoStream]"]


def video(data: bytes | memoryview, choose: Callable[[int], Sequence[int]] | None = None) -> NDArray[np.uint8]:
    """Return frames of the clip as uint8, shape (T, H, W, 3), red first.

    Reads MP4, QuickTime, Matroska, WebM and AVI, whatever the member is called. What an edit list leaves out is no
    frame of the clip, and neither is one whose beginning was cut off.

    `choose` is given the number of frames and returns, ascending, those to keep (all by default). Only these are
    converted to RGB, and nothing is decoded after the last. Where fewer than the packets promise can be shown, as
    where a clip was cut inside a group of pictures, it is asked once more. Raises ValueError where the bytes are not a
    video, or where it has fewer frames than its header claims.
    """
    choose = choose or range
    try:
        with opened(io.BytesIO(data)) as container:
            stream = _checked_stream(container)
            # Demuxed once, to count the frames and to decode them: opening a small clip twice costs as much as that.
            packets = _packets(container, stream)
            if _num_coded(container, packets) < stream.frames:
                _refuse_missing(data, stream.frames)
            num_frames = sum(packet.size > 0 and not packet.is_discard for packet in packets)
            kept, num_shown = _kept(packets, choose(num_frames) if num_frames else ())
            if kept is None and num_shown:
                # A decoder that has given its last frame takes no packet until it is flushed.
                stream.codec_context.flush_buffers()
                kept, num_shown = _kept(packets, choose(num_shown))
    except av.FFmpegError as error:
        raise ValueError(f"corrupt video ({error.strerror})") from error
    if kept is None:
        raise ValueError(f"video of {counted(num_shown, 'frame')}")
    return kept


def shape(data: bytes | memoryview) -> tuple[int, ...]:
    """Return (T, H, W, 3) of the clip, all of it decoded and no more than a frame kept; ValueError as `video`."""
    num_frames = 0

    def last(available: int) -> Sequence[int]:
        nonlocal num_frames
        num_frames = available
        return (available - 1,)

    frames = video(data, last)
    return num_frames, *frames.shape[1:]


def opened(file: BinaryIO, **options: str) -> InputContainer:
    """Return the file, demuxed as what its first bytes say; ValueError where they are none of a video that is read.

    ffmpeg guesses among some 300 formats if it may, and some of them are texts that name other files, or sockets.
    """
    start = file.read(16)
    file.seek(0)
    if start[4:8] in _MP4_BOXES:
        mp4.refuse_bomb(file)
        demuxer = "mov"
    elif start[:4] == b"\x1aE\xdf\xa3":
        demuxer = "matroska"
    elif start[:4] == b"RIFF" and start[8:11] == b"AVI":
        demuxer = "avi"
    else:
        raise ValueError(f"not a video: it begins with {start[:8]!r}; expected MP4, QuickTime, Matroska, WebM or AVI")
    return av.open(file, "r", format=demuxer, options={**_OPTIONS, **options}, io_open=_refuse_to_open)


def _refuse_to_open(url: str, flags: int, options: object) -> NoReturn:  # noqa: ARG001 - PyAV's signature
    raise ValueError("video in more than one file")


def _checked_stream(container: InputContainer) -> av.VideoStream:
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        # The picture on the cover of a recording is no clip.
        raise ValueError("file without a video stream")
    stream = streams[0]
    if not hasattr(stream, "width"):
        raise ValueError("video of an unknown codec")
    if stream.width * stream.height > MAX_PIXELS:
        raise ValueError(f"video claims {stream.width} x {stream.height} pixels; at most {MAX_PIXELS} are decoded")
    # The loader's threads are enough.
    stream.thread_count = 1
    # Frames may be larger than the header says.
    stream.codec_context.options = dict(_OPTIONS)
    return stream


def _packets(container: InputContainer, stream: av.VideoStream) -> Packets:
    packets, num_bytes = [], 0
    for packet in container.demux(stream):
        # FFmpeg would make the missing part of the frame up.
        if packet.is_corrupt:
            raise ValueError("clip ends in the middle of a frame")
        packets.append(packet)
        num_bytes += packet.size
        if num_bytes > MAX_CLIP_BYTES:
            raise ValueError(f"clip of more than {MAX_CLIP_BYTES} coded bytes; cut it into shorter ones")
    return packets


def _num_coded(container: InputContainer, packets: Packets) -> int:
    """Return how many frames are coded, in the unit in which the container counts them."""
    times = [packet.dts or 0 for packet in packets if packet.size > 0]
    if container.format.name != "avi" or len(times) < 2:
        return len(times)
    # An AVI counts ticks. A frame may last several: the others have empty chunks, which become no packets.
    steps = np.diff(np.array(times, np.float64))
    return int(steps.sum() + steps.max())


def _refuse_missing(data: bytes | memoryview, claimed: int) -> None:
    """Raise ValueError unless an edit list is why fewer packets came than the header claims."""
    with opened(io.BytesIO(data), ignore_editlist="1") as container:
        counted = _num_coded(container, _packets(container, _checked_stream(container)))
    if counted < claimed:
        raise ValueError(f"video claims {claimed} frames, {counted} are there")


def _kept(packets: Packets, wanted: Sequence[int]) -> tuple[NDArray[np.uint8] | None, int]:
    """Return the frames with these numbers, None where there are not so many, and how many were decoded."""
    kept: list[NDArray[np.uint8]] = []
    # One for all frames of the clip: making one a frame takes three times as long (28 against 10 ms for 64 frames).
    reformatter = VideoReformatter()
    number = -1
    for number, frame in enumerate(_decoded(packets)):
        if len(kept) < len(wanted) and number == wanted[len(kept)]:
            rgb = reformatter.reformat(frame, format="rgb24").to_ndarray()
            kept.append(_upright(rgb.astype(np.uint8, copy=False), frame.rotation))
            if kept[-1].shape != kept[0].shape:
                raise ValueError(f"clip of frames of different sizes: {kept[0].shape[:2]}, {kept[-1].shape[:2]}")
            if len(kept) * kept[0].nbytes > MAX_CLIP_BYTES:
                raise ValueError(f"clip of more than {MAX_CLIP_BYTES} decoded bytes; cut it into shorter ones")
            if len(kept) == len(wanted):
                return np.stack(kept), number + 1
    return None, number + 1


def _decoded(packets: Packets) -> Iterator[av.VideoFrame]:
    num_pixels = 0
    for packet in packets:
        for frame in packet.decode():
            num_pixels += frame.width * frame.height
            if num_pixels > MAX_DECODED_PIXELS:
                raise ValueError(f"clip of more than {MAX_DECODED_PIXELS} pixels; cut it into shorter ones")
            yield frame


def _upright(rgb: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Return the frame turned to the left by the nearest quarter turns: a telephone held upright films lying frames."""
    return np.rot90(rgb, round(degrees / 90))
