"""Videos: one folder per class, or a table of them. The audio track becomes a member of its own."""

import io
import wave
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Unpack

import av
import numpy as np
from av.audio.resampler import AudioResampler

from data_shards.building.builder import BuildOptions
from data_shards.building.raw_sample import File, Row
from data_shards.files.regular_file import open_regular
from data_shards.format.manifest import Manifest
from data_shards.modalities.decoding.audio import MAX_SAMPLES
from data_shards.modalities.decoding.video import opened
from data_shards.modalities.kinds.catalogue import usual_suffixes
from data_shards.sources import class_folders, table


def build(source: Path, out: Path, *, audio: bool = True, **options: Unpack[BuildOptions]) -> Manifest:
    """Build shards of videos, and of their sound where they have any and `audio` is asked for.

    `source` is a folder, laid out as class_folders says, or a table whose column video holds the paths.
    """
    if source.is_dir():
        files, names = class_folders.find(source, "video", options.get("tell"))
        rows = [Row(line, (File(file.path),), file.label, split=file.split) for line, file in enumerate(files)]
        found = table.Table(rows, names)
    else:
        found = table.read(source, options.get("tell"))
    return found.build(out, [_with_soundtrack(row) for row in found.rows] if audio else found.rows, **options)


def _with_soundtrack(row: Row) -> Row:
    """Add the sound of a row's video, unless the row has a recording of its own."""
    extensions = {content.extension for content in row.members}
    videos = [
        content for content in row.members if isinstance(content, File) and content.extension in usual_suffixes("video")
    ]
    if not videos or extensions & set(usual_suffixes("audio")):
        return row
    return replace(row, members=(*row.members, Soundtrack(videos[0].path)))


@dataclass(frozen=True, slots=True)
class Soundtrack:
    """The first audio track of a video, decoded when it is read."""

    path: str
    extension: str = "wav"

    @property
    def origin(self) -> str:
        """Which track it is."""
        return f"{self.path} (audio track)"

    @property
    def num_bytes(self) -> int:
        """Return 0: the size is not known before decoding. It is about proportional to the video, which is counted."""
        return 0

    def read(self) -> bytes | None:
        """Return the track as WAV, 16 bit, mono, at its own rate; None where the video is silent."""
        try:
            return extract_audio(self.path)
        except av.FFmpegError as error:
            raise ValueError(f"corrupt audio track ({error.strerror})") from error


def extract_audio(path: str) -> bytes | None:
    """Return the first audio track of a file as WAV, None where there is none."""
    with open_regular(path) as video, opened(video) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        resampler = AudioResampler(format="s16", layout="mono", rate=stream.rate)
        pieces, num_samples = [], 0
        # None at the end makes the resampler give what it still holds.
        for frame in chain(container.decode(stream), [None]):
            pieces += [piece.to_ndarray().ravel() for piece in resampler.resample(frame)]
            num_samples += frame.samples if frame else 0
            # While it is decoded: a small file may hold hours of silence.
            if num_samples > MAX_SAMPLES:
                raise ValueError(f"audio track of more than {MAX_SAMPLES} samples; cut the video into pieces")
        rate = stream.rate
    encoded = io.BytesIO()
    with wave.open(encoded, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        # With an empty piece: a track may have a header and no frames.
        file.writeframes(np.concatenate([np.zeros(0, "<i2"), *pieces]).astype("<i2").tobytes())
    return encoded.getvalue()
