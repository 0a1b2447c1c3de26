import io
import struct
import tempfile
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from data_shards.modalities.decoding import video as decoder
from data_shards.modalities.decoding.formats.mp4 import refuse_bomb
from data_shards.modalities.decoding.video import shape, video
from data_shards.modalities.kinds.catalogue import BY_NAME


def encode(frames: np.ndarray, kind: str = "mp4", codec: str = "mpeg4", movflags: str = "", **options: str) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        # By its name: what puts the header first opens the file once more.
        with av.open(file.name, "w", format=kind, container_options={"movflags": movflags} if movflags else {}) as out:
            stream = out.add_stream(codec, rate=10, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            out.mux(stream.encode(None))
        return Path(file.name).read_bytes()


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
    with pytest.raises(ValueError, match=r"claims 200 frames, 1\d are there"):
        video(lying)


@pytest.mark.parametrize("cut", [0, 20, 200, -400])
def test_a_clip_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="video"):
        video(encode(CLIP)[:cut])


@pytest.mark.parametrize("kept", [0.6, 0.9, 0.999])
def test_a_clip_whose_header_came_first_is_refused_where_it_is_cut(kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, CLIP.shape, np.uint8)
    data = encode(noise, movflags="faststart")
    assert data.index(b"moov") < data.index(b"mdat")
    with pytest.raises(ValueError, match=r"video claims 12 frames, \d+ are there|ends in the middle of a frame"):
        video(data[: int(len(data) * kept)])


def test_a_fragmented_clip_is_whole() -> None:
    assert brightness(video(encode(CLIP, movflags="frag_every_frame+empty_moov"))) == list(range(12))


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_a_clip_of_one_frame_is_one(kind: str) -> None:
    assert video(encode(CLIP[:1], kind)).shape == (1, 32, 48, 3)


def test_a_sound_file_is_no_video() -> None:
    with pytest.raises(ValueError, match="not a video"):
        video(b"RIFF\0\0\0\0WAVE" + bytes(100))


def brightness(frames: np.ndarray) -> list[int]:
    """The number that each frame of CLIP has there."""
    return np.rint(frames.mean(axis=(1, 2, 3)) / 20).astype(int).tolist()


def box(data: bytes, name: bytes) -> slice:
    """Where the content of the first box of that name is."""
    place = data.index(name)
    return slice(place + 4, place - 4 + int.from_bytes(data[place - 4 : place], "big"))


def cut_without_encoding(first: int, last: int) -> bytes:
    """CLIP with an edit list that shows these frames alone, as ffmpeg's -c copy writes it."""
    data = encode(CLIP, g="12")
    ticks = int.from_bytes(data[box(data, b"mdhd")][12:16], "big") // 10
    seconds = int.from_bytes(data[box(data, b"mvhd")][12:16], "big")
    edits = struct.pack(">IIIII", 0, 1, (last + 1 - first) * seconds // 10, first * ticks, 0x10000)
    return data[: box(data, b"elst").start] + edits + data[box(data, b"elst").stop :]


@pytest.mark.parametrize(("first", "last"), [(0, 11), (3, 11), (0, 7), (4, 6)])
def test_what_an_edit_list_leaves_out_is_no_frame(first: int, last: int) -> None:
    data = cut_without_encoding(first, last)
    assert brightness(video(data)) == list(range(first, last + 1))
    assert brightness(video(data, lambda available: [0, available - 1])) == [first, last]
    assert BY_NAME["video"].decoded_shape("", data) == (last + 1 - first, 32, 48, 3)


def headless(num_missing: int) -> bytes:
    """A clip that was cut where its frames refer to ones before the cut."""
    encoded = encode(np.concatenate([CLIP] * 4), codec="libx264", **{"x264-params": "open-gop=1:keyint=6:bframes=2"})
    file = io.BytesIO()
    with av.open(io.BytesIO(encoded)) as whole, av.open(file, "w", format="matroska") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for packet in list(whole.demux(video=0))[num_missing:-1]:
            packet.stream = stream
            cut.mux(packet)
    return file.getvalue()


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="PyAV was built without x264")
@pytest.mark.parametrize("num_missing", [1, 5, 6, 7, 12])
def test_a_clip_without_its_beginning_has_the_frames_that_can_be_shown(num_missing: int) -> None:
    data = headless(num_missing)
    with av.open(io.BytesIO(data)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    assert 0 < shown <= 48 - num_missing
    asked = []
    frames = video(data, lambda available: asked.append(available) or range(available))
    assert len(frames) == shown == asked[-1]
    assert shape(data) == frames.shape


def test_an_avi_whose_frames_last_several_ticks_is_whole() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number, frame in enumerate(CLIP):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = 2 * number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert brightness(video(file.getvalue())) == list(range(12))


TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("degrees", TURNS)
def test_a_clip_that_was_filmed_lying_is_upright(degrees: int) -> None:
    clip = CLIP.copy()
    clip[:, :, :24] = 0  # black on the left
    data = encode(clip)
    a, b, c, d = (value << 16 for value in TURNS[degrees])
    header = box(data, b"tkhd")
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = data[: header.start + 40] + matrix + data[header.start + 76 :]
    # The matrix turns clockwise: black goes from the left to the top, the right, the bottom.
    expected = np.rot90(video(data), -degrees // 90, axes=(1, 2))
    np.testing.assert_array_equal(video(turned), expected)


def test_frames_larger_than_the_limit_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(CLIP)
    monkeypatch.setattr(decoder, "MAX_PIXELS", 32 * 48)
    assert shape(data) == CLIP.shape
    monkeypatch.setattr(decoder, "MAX_PIXELS", 32 * 48 - 1)
    for look in (shape, video):
        with pytest.raises(ValueError, match="video claims 48 x 32 pixels; at most 1535 are decoded"):
            look(data)


def test_frames_that_are_passed_over_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_DECODED_PIXELS", 5 * 32 * 48)
    assert len(video(encode(CLIP), lambda _: [4])) == 1
    with pytest.raises(ValueError, match="clip of more than 7680 pixels"):
        video(encode(CLIP), lambda available: [available - 1])


def test_a_clip_is_checked_without_keeping_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(CLIP)
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", 10_000)
    assert BY_NAME["video"].decoded_shape("", data) == (12, 32, 48, 3)
    with pytest.raises(ValueError, match="clip of more than 10000 decoded bytes"):
        video(data)


def test_a_clip_of_too_many_coded_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(CLIP)
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", 100)
    with pytest.raises(ValueError, match="clip of more than 100 coded bytes"):
        BY_NAME["video"].decoded_shape("", data)


def test_a_clip_may_have_as_many_bytes_and_pixels_as_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data, num_bytes, num_pixels = encode(CLIP), CLIP.nbytes, CLIP.size // 3
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", num_bytes)
    monkeypatch.setattr(decoder, "MAX_DECODED_PIXELS", num_pixels)
    assert len(video(data)) == 12
    monkeypatch.setattr(decoder, "MAX_DECODED_PIXELS", num_pixels - 1)
    with pytest.raises(ValueError, match=f"clip of more than {num_pixels - 1} pixels; cut it into shorter ones"):
        video(data)
    monkeypatch.setattr(decoder, "MAX_DECODED_PIXELS", num_pixels)
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", num_bytes - 1)
    with pytest.raises(ValueError, match=f"clip of more than {num_bytes - 1} decoded bytes; cut it into shorter ones"):
        video(data)
    noise = encode(np.random.default_rng(0).integers(0, 256, CLIP.shape, np.uint8))
    with av.open(io.BytesIO(noise)) as container:
        num_coded = sum(packet.size for packet in container.demux(video=0))
    assert num_coded > CLIP[0].nbytes
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", num_coded)
    assert shape(noise) == CLIP.shape
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", num_coded - 1)
    with pytest.raises(ValueError, match=f"clip of more than {num_coded - 1} coded bytes; cut it into shorter ones"):
        shape(noise)


CLAIM = b"\0\0\0\x18stsz" + b"\0" * 8 + b"\xff\xff\0\0" + b"\0" * 4


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\0\0\0\x08free",
        b"\0\0\0\x08free\0\0\0\x10mdat" + bytes(8),
        b"\0\0\0\x01mdat" + (24).to_bytes(8, "big") + bytes(8),
        # Up to the end, where it is no media.
        b"\0\0\0\0free",
        b"\0\0\0\x07free",
        b"\0\0\0\x01free" + b"\xff" * 8,
    ],
)
def test_what_stands_in_any_box_or_behind_it_is_looked_at(before: bytes) -> None:
    with pytest.raises(ValueError, match=r"claims .*4294901760"):
        refuse_bomb(io.BytesIO(before + CLAIM))


@pytest.mark.parametrize(
    "before", [b"\0\0\0\x20mdat", b"\0\0\0\0mdat", b"\0\0\0\x01mdat" + (40).to_bytes(8, "big"), b"\xff\0\0\0mdat"]
)
def test_what_claims_much_within_coded_samples_claims_nothing(before: bytes) -> None:
    refuse_bomb(io.BytesIO(b"\0\0\0\x08free" + before + CLAIM + b"\0\0"))


def test_a_compressed_header_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"compressed header; convert it, as by ffmpeg -i OLD -c copy NEW\.mp4"):
        refuse_bomb(io.BytesIO(b"\0\0\0\x10moov\0\0\0\x08cmov"))


@pytest.mark.parametrize("name", [b"stsz", b"stts", b"elst"])
def test_a_table_that_claims_billions_is_refused_before_they_are_laid_out(name: bytes) -> None:
    data = bytearray(encode(CLIP, bf="0"))
    start = box(bytes(data), name).start
    count = {b"stsz": start + 8, b"stts": start + 8, b"elst": start + 4}[name]
    if name == b"stsz":
        data[start + 4 : start + 8] = (7).to_bytes(4, "big")
    data[count : count + 4] = (80_000_000).to_bytes(4, "big")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"claims .*80000"):
        video(bytes(data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


ENTRIES = {b"stts": (">II", 0), b"ctts": (">II", 0), b"stsc": (">III", 1)}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("num_listed", [2, 9])
def test_the_entries_of_a_table_may_have_as_many_samples_as_the_file_has_bytes(name: bytes, num_listed: int) -> None:
    layout, column = ENTRIES[name]

    def claiming(*counts: int) -> io.BytesIO:
        # Whatever else an entry holds, counts nothing.
        rows = [[2**32 - 1] * (len(layout) - 1) for _ in counts]
        for row, count in zip(rows, counts, strict=True):
            row[column] = count
        table = struct.pack(">II", 0, num_listed) + b"".join(struct.pack(layout, *row) for row in rows)
        return io.BytesIO(struct.pack(">I", 8 + len(table)) + name + table)

    num_bytes = len(claiming(0, 0).getvalue())
    file = claiming(1, num_bytes - 1)
    refuse_bomb(file)
    assert file.tell() == 0
    with pytest.raises(ValueError, match=rf"video of {num_bytes} bytes claims .*{name.decode()}.*: {num_bytes + 1}"):
        refuse_bomb(claiming(2, num_bytes - 1))


def test_names_of_tables_without_end_are_refused_before_each_is_read_to_the_end() -> None:
    # The entries of each are all that follow, and hold no samples.
    tables = b"stts\0\0\0\0" * 1_000
    with pytest.raises(ValueError, match=r"claims \{b'stts': 8\d\d\d\} samples"):
        refuse_bomb(io.BytesIO(struct.pack(">I", 8 + len(tables)) + b"free" + tables))


@pytest.mark.parametrize(("num_edits", "is_refused"), [(4, False), (5, True)])
def test_each_edit_may_show_all_samples_again(num_edits: int, is_refused: bool) -> None:
    edits = struct.pack(">I4sII", 16, b"elst", 0, num_edits)
    sizes = b"".join(struct.pack(">I4sIII", 20, name, 0, 0, 7) for name in (b"stsz", b"stz2"))
    file = io.BytesIO(edits + sizes)
    assert len(file.getvalue()) == 4 * (7 + 7)
    if is_refused:
        with pytest.raises(ValueError, match="video of 56 bytes claims"):
            refuse_bomb(file)
    else:
        refuse_bomb(file)


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile x.mp4\n", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "#EXTM3U\n", "<MPD/>"]
)
def test_a_text_that_names_other_files_is_no_video(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a video: it begins with .*; expected MP4, QuickTime, Matroska, WebM or"):
        video(text.encode())


@pytest.mark.parametrize("has_clip", [False, True])
def test_the_picture_of_a_cover_is_no_clip(has_clip: bool) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", width=32, height=32, pix_fmt="yuvj420p")
        cover.disposition = Disposition.attached_pic
        clip = container.add_stream("mpeg4", width=16, height=16, pix_fmt="yuv420p") if has_clip else None
        for stream, number in ((cover, 1), (clip, 3)):
            for _ in range(number) if stream else ():
                frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
                container.mux(stream.encode(frame))
            if stream:
                container.mux(stream.encode(None))
    if has_clip:
        assert shape(file.getvalue()) == (3, 16, 16, 3)
    else:
        with pytest.raises(ValueError, match="file without a video stream"):
            video(file.getvalue())
