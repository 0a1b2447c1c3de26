import io

import av
import numpy as np
import pytest

from data_shards.decoders.video import video


def encode(frames: np.ndarray, kind: str = "mp4", codec: str = "mpeg4") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


# Each frame one grey, so that a frame is known by its brightness whatever the codec does to edges.
CLIP = np.repeat(np.arange(0, 240, 20, np.uint8), 32 * 48 * 3).reshape(12, 32, 48, 3)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_a_clip_gives_all_its_frames_in_order(kind: str) -> None:
    decoded = video(encode(CLIP, kind))
    assert decoded.shape == (12, 32, 48, 3)
    assert decoded.dtype == np.uint8
    # A lossy codec and a change of colour space: a few steps of 255, far less than the 20 between frames.
    np.testing.assert_allclose(decoded.mean(axis=(1, 2, 3)), CLIP.mean(axis=(1, 2, 3)), atol=4)


def test_only_the_frames_asked_for_are_returned() -> None:
    data = encode(CLIP)
    chosen = video(data, lambda available: [1, available - 2])
    np.testing.assert_array_equal(chosen, video(data)[[1, 10]])


def test_a_clip_that_lies_about_its_length_is_refused() -> None:
    data = encode(CLIP, "avi")
    # The number of frames in an AVI's header, 12, is made 200.
    lying = data.replace((12).to_bytes(4, "little"), (200).to_bytes(4, "little"))
    assert lying != data
    with pytest.raises(ValueError, match="claims 200 frames, 12 are there"):
        video(lying)


@pytest.mark.parametrize("cut", [0, 20, 200, -400])
def test_a_clip_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="video"):
        video(encode(CLIP)[:cut])


def test_a_sound_file_is_no_video() -> None:
    with pytest.raises(ValueError, match="video"):
        video(b"RIFF" + bytes(100))
