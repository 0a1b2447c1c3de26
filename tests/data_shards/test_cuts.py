"""Of a sample that is longer than its input reads, the modality says so, and the counts tell it once."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from data_shards.config import DataConfig
from data_shards.loading.cuts import Cuts
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import Member, Modality
from data_shards.modalities.transform_config import ClipsConfig, LogMelConfig, MaskingConfig


def wav(length: int) -> bytes:
    import wave

    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(length).astype("<i2").tobytes())
    return content.getvalue()


def npy(*shape: int) -> bytes:
    content = io.BytesIO()
    np.save(content, np.random.default_rng(0).normal(size=shape).astype(np.float32))
    return content.getvalue()


def mp4(num_frames: int) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for _ in range(num_frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    return content.getvalue()


TEXT, SOUND, CLOUD = TextConfig(num_bytes=4), AudioConfig(num_samples=64), PointsConfig(num_points=4)
MASKED = TextConfig(num_bytes=4, masking=MaskingConfig())
CLIP = VideoConfig(num_frames=2, height=8, width=8)
STEPS = VideoConfig(num_frames=2, height=8, width=8, frame_step=2)
MEL = AudioConfig(num_samples=64, log_mel=LogMelConfig(num_bins=4, window_seconds=0.004, hop_seconds=0.002))
EEG = ArrayConfig(shape=(4, 2), axes=("time", "channel"))
Make = Callable[[], bytes]
LENGTHS: dict[str, tuple[Modality, Make, Make, str]] = {
    "bytes": (TEXT, lambda: b"abcd", lambda: b"abcde", "longer than 4 bytes and were cut"),
    "hidden words": (MASKED, lambda: b"ab d", lambda: b"ab de", "longer than 4 bytes and were cut"),
    "marks": (
        MASKED.of_prediction(),
        lambda: b"a[MASK]bc",
        lambda: b"a[MASK]bcd",
        "longer than 4 bytes and were cut",
    ),
    "sound": (SOUND, lambda: wav(64), lambda: wav(65), "longer than 0.008 s and were cut"),
    "frames of sound": (MEL, lambda: wav(64), lambda: wav(65), "longer than 0.008 s and were cut"),
    "points": (CLOUD, lambda: npy(4, 3), lambda: npy(5, 3), "larger than 4 points and were subsampled"),
    "array": (EEG, lambda: npy(4, 2), lambda: npy(5, 2), "longer than 4 along the axis time and were cut"),
    "spread frames": (CLIP, lambda: mp4(2), lambda: mp4(3), "longer than 2 frames and were subsampled"),
    "frames in a row": (STEPS, lambda: mp4(4), lambda: mp4(5), "longer than 2 frames at a step of 2 and were cut"),
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_sample_of_one_entry_too_many_is_cut_and_one_of_the_whole_length_is_not(kind: str) -> None:
    section, fitting, longer, words = LENGTHS[kind]
    for content, expected in ((fitting(), False), (longer(), True)):
        for rng in (None, np.random.default_rng(0)):
            assert section.prepare({"": Member("x", content)}, rng).is_cut is expected
    config = DataConfig(inputs={"it": section})
    assert Cuts({"it": (2, 3)}).sentences(config) == [f"2 of 3 samples of input it were {words}"]
    assert Cuts({"it": (0, 3)}).sentences(config) == []


def test_tokens_are_counted_and_not_bytes(tokenizers: dict[str, Path]) -> None:
    section = TextConfig(tokenizer=str(tokenizers["bytes"]), num_tokens=4)
    for words, expected in ((b"the dog", False), (b"every word of this text is known", True)):
        assert section.prepare({"": Member("x", words)}, None).is_cut is expected
    assert "longer than 4 tokens" in Cuts({"it": (1, 1)}).sentences(DataConfig(inputs={"it": section}))[0]


def test_a_mesh_has_no_number_of_points_to_be_cut() -> None:
    off = b"OFF\n4 1 0\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n3 0 1 2\n"
    assert not PointsConfig(num_points=2).prepare({"": Member("off", off)}, None).is_cut


def test_of_an_evaluation_of_several_clips_it_says_how_many_were_read() -> None:
    sound, text = AudioConfig(num_samples=64), TextConfig(num_bytes=4)
    config = DataConfig(inputs={"sound": sound, "text": text}, clips=ClipsConfig(3))
    assert Cuts({"sound": (1, 1), "text": (1, 1)}).sentences(config) == [
        "1 of 1 sample of input sound was longer than 0.008 s: 3 clips of each were read",
        "1 of 1 sample of input text was longer than 4 bytes and was cut",
    ]
