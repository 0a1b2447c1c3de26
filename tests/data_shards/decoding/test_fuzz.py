"""Bytes that were damaged in any way are refused by ValueError or decoded whole: no crash, no hang, no other error."""

import io
import random
import warnings
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from data_shards.modalities.decoding.formats.ply import END
from data_shards.modalities.kinds.catalogue import BY_NAME
from data_shards.sources.digits import Drawn

NUM_MUTANTS = 1_000
"""Of each kind: 23 000 in all. 250 000 were run once, with no other outcome."""


def decoded_shape(content: str, data: bytes) -> tuple[int, ...]:
    kind, role = ("flow", "motion") if content == "motion" else (content, "")
    return BY_NAME[kind].decoded_shape(role, data)


def image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def sound(kind: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 700), 8_000, format=kind, subtype=subtype)
    return file.getvalue()


def video(kind: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=10, options={"g": "3"})
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for level in range(0, 200, 40):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, points=np.random.default_rng(0).normal(size=(9, 3)))
    return file.getvalue()


def deep_png() -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 9, 7, "rgb48be", Fraction(1, 1)
    frame = av.VideoFrame(9, 7, "rgb48be")
    frame.planes[0].update(np.random.default_rng(0).bytes(frame.planes[0].buffer_size))
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def tiff(**options: Any) -> bytes:  # noqa: ANN401 - of tifffile
    file = io.BytesIO()
    channels = np.random.default_rng(0).normal(size=(16, 16, 5)).astype(np.float32)
    tifffile.imwrite(file, channels, photometric="minisblack", planarconfig="contig", **options)
    return file.getvalue()


def ply() -> bytes:
    head = b"ply\nformat binary_little_endian 1.0\nelement vertex 4\n"
    head += b"".join(b"property float %c\n" % axis for axis in b"xyz")
    return head + END + b"\n" + np.arange(12, dtype="<f4").tobytes()


SEEDS = {
    "png": lambda: ("image", image("PNG")),
    "jpg": lambda: ("image", image("JPEG")),
    "webp": lambda: ("image", image("WEBP")),
    "bmp": lambda: ("image", image("BMP")),
    "deep png": lambda: ("image", deep_png()),
    "tiff": lambda: ("image", tiff()),
    "tiff by deflate": lambda: ("image", tiff(compression="zlib")),
    "tiff by LZW": lambda: ("image", tiff(compression="lzw", tile=(16, 16))),
    "wav": lambda: ("audio", sound("WAV")),
    "flac": lambda: ("audio", sound("FLAC")),
    "mp3": lambda: ("audio", sound("MP3")),
    "ogg": lambda: ("audio", sound("OGG")),
    "coded wav": lambda: ("audio", sound("WAV", "IMA_ADPCM")),
    "mp4": lambda: ("video", Drawn(0, 0, "mp4").read()),
    "mkv": lambda: ("video", video("matroska")),
    "avi": lambda: ("video", video("avi")),
    "npy": lambda: ("points", Drawn(0, 0, "npy").read()),
    "npz": lambda: ("points", npz()),
    "ply": lambda: ("points", ply()),
    "ppm": lambda: ("flow", image("PPM")),
    "flo": lambda: ("motion", b"PIEH\x03\0\0\0\x02\0\0\0" + np.arange(12, dtype="<f4").tobytes()),
    "coff": lambda: ("points", b"COFF\n3 1 0\n0 0 0 9 9 9\n1 0 0 9 9 9\n0 1 0 9 9 9\n3 0 1 2\n"),
    "off": lambda: ("points", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"),
}


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Flip, overwrite, cut, repeat or insert; mostly near the start, where the headers are."""
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = min(int(draw.expovariate(4 / len(data))), len(damaged) - 1) if damaged else 0
        match draw.randrange(5):
            case 0 if damaged:
                damaged[place] ^= 1 << draw.randrange(8)
            case 1:
                damaged[place : place + 4] = draw.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"])
            case 2:
                del damaged[draw.randrange(len(damaged) + 1) :]
            case 3:
                damaged[place:place] = damaged[place : place + draw.randrange(64)]
            case 4:
                damaged[place:place] = draw.randbytes(draw.randrange(8))
    return bytes(damaged)


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_bytes_are_refused_or_decoded(kind: str) -> None:
    modality, whole = SEEDS[kind]()
    decoded_shape(modality, whole)
    num_refused = 0
    for seed in range(NUM_MUTANTS):
        with warnings.catch_warnings():
            # Pillow warns of oddities that it survives.
            warnings.simplefilter("ignore")
            try:
                shape = decoded_shape(modality, mutant(whole, random.Random(seed)))
            except ValueError as error:
                assert str(error), "says nothing"  # noqa: PT017 - whether it raises is what is open
                num_refused += 1
            else:
                assert min(shape) > 0
    assert num_refused > NUM_MUTANTS / 20, "the damage is too small to test anything"
