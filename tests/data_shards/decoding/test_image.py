import io
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from data_shards.modalities.decoding import image as decoder
from data_shards.modalities.decoding.image import image, pixels


def encode(picture: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(values)


def test_a_png_gives_its_pixels(picture: Image.Image) -> None:
    np.testing.assert_array_equal(pixels(encode(picture)), np.asarray(picture))


def test_an_image_is_float_from_0_to_1(picture: Image.Image) -> None:
    decoded = image(memoryview(encode(picture)))
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, np.asarray(picture, np.float32) / 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_becomes_red_green_blue(picture: Image.Image, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert pixels(encode(picture.convert(mode), kind)).shape == (5, 7, 3)


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_transparent_pixels_keep_their_colour(mode: str, transparency: int | bytes) -> None:
    picture = Image.new(mode, (3, 2), 0)
    if mode == "P":
        picture.putpalette([200, 100, 50] * 3)
    if mode == "RGB":
        transparency = (0, 0, 0)  # type: ignore[assignment]
    elif mode == "L":
        transparency = 0
    expected = [200, 100, 50] if mode == "P" else [0, 0, 0]
    assert pixels(encode(picture, transparency=transparency)).reshape(-1, 3).tolist() == [expected] * 6


def test_sixteen_bits_of_grey_are_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 257, 0x8080, 0xFFFF]], np.uint16))
    assert pixels(encode(grey))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bits_of_grey_in_a_ppm_are_scaled_too() -> None:
    assert pixels(b"P5 4 1 65535\n" + np.array([0, 257, 0x8080, 0xFFFF], ">u2").tobytes())[0, :, 0].tolist() == [
        0,
        1,
        128,
        255,
    ]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "PPM"])
def test_every_documented_format_is_read(picture: Image.Image, kind: str) -> None:
    assert pixels(encode(picture, kind)).shape == (5, 7, 3)


@pytest.mark.parametrize("kind", ["GIF", "ICO", "EPS", "PCX", "TGA", "SGI", "DDS", "MSP", "XBM", "PALM"])
def test_no_other_format_is_opened(picture: Image.Image, kind: str) -> None:
    with pytest.raises(ValueError, match=r"not an image.*expected PNG, JPEG, WebP, BMP, PPM or TIFF"):
        pixels(encode(picture.convert("1" if kind in ("MSP", "XBM", "PALM") else "RGB"), kind))


def test_a_jpeg_of_endless_scans_is_refused(picture: Image.Image) -> None:
    data = encode(picture, "JPEG", progressive=True)
    begin = data.rindex(b"\xff\xda")
    with pytest.raises(ValueError, match=r"JPEG of 1\d\d scans; at most 100"):
        pixels(data[:begin] + data[begin:-2] * 100 + data[-2:])


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_a_note_of_a_png_is_passed_over_or_refused(picture: Image.Image, chunk: bytes) -> None:
    packed = zlib.compress(bytes(40 << 20), 1)
    body = b"x\0" + (b"\x01\0\0\0" if chunk == b"iTXt" else b"\0") + packed
    note = struct.pack(">I", len(body)) + chunk + body + struct.pack(">I", zlib.crc32(chunk + body))
    data = encode(picture)
    tracemalloc.start()
    with suppress(ValueError):
        pixels(data[:33] + note + data[33:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


def bomb() -> bytes:
    """A PNG of a few bytes that claims 50 000 x 50 000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ValueError, match="pixels"):
        pixels(bomb())


def test_a_flipped_bit_in_the_pixels_of_a_png_is_found(picture: Image.Image) -> None:
    data = bytearray(encode(picture))
    data[len(data) // 2] ^= 4
    with pytest.raises(ValueError, match="corrupt image"):
        pixels(bytes(data))


def test_a_corrupt_image_is_said_to_be_one(picture: Image.Image) -> None:
    data = encode(picture)
    with pytest.raises(ValueError, match="corrupt image"):
        pixels(data[: len(data) // 2])
    with pytest.raises(ValueError, match="not an image"):
        pixels(b"no image")
    with pytest.raises(ValueError, match="not an image"):
        pixels(b"")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 10}, {"progressive": True}, {"quality": 100}]
)
def test_the_fast_jpeg_decoder_equals_pillow_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, mode: str, options: dict[str, int]
) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    data = encode(Image.fromarray(smooth).resize((75, 61)).convert(mode), "JPEG", **options)
    fast = pixels(data)
    monkeypatch.setattr(decoder, "simplejpeg", None)
    np.testing.assert_array_equal(fast, pixels(data))


def test_the_fast_jpeg_decoder_is_used_where_it_is_there(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(decoder.Image, "open", lambda _: pytest.fail("Pillow was asked"))
    assert pixels(encode(picture, "JPEG")).shape == (5, 7, 3)


def test_a_jpeg_cut_short_is_said_to_be_corrupt(picture: Image.Image) -> None:
    data = encode(picture, "JPEG")
    with pytest.raises(ValueError, match="corrupt image"):
        pixels(data[:-40])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_may_have_as_many_pixels_as_are_decoded(
    monkeypatch: pytest.MonkeyPatch, picture: Image.Image, kind: str, mode: str
) -> None:
    data = encode(picture.convert(mode), kind)
    monkeypatch.setattr(decoder, "MAX_PIXELS", 35)
    assert pixels(data).shape == (5, 7, 3)
    monkeypatch.setattr(decoder, "MAX_PIXELS", 34)
    with pytest.raises(ValueError, match="image claims 7 x 5 pixels; at most 34 are decoded"):
        pixels(data)


def test_a_jpeg_may_have_as_many_scans_as_are_decoded(monkeypatch: pytest.MonkeyPatch, picture: Image.Image) -> None:
    data = encode(picture, "JPEG", progressive=True)
    num_scans = data.count(b"\xff\xda")
    assert num_scans > 1
    monkeypatch.setattr(decoder, "MAX_SCANS", num_scans)
    assert pixels(data).shape == (5, 7, 3)
    monkeypatch.setattr(decoder, "MAX_SCANS", num_scans - 1)
    with pytest.raises(ValueError, match=f"JPEG of {num_scans} scans; at most {num_scans - 1} are decoded"):
        pixels(data)


def test_an_image_of_which_the_first_bytes_alone_are_right_is_corrupt() -> None:
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"BM", b"P6"):
        with pytest.raises(ValueError, match="corrupt image"):
            pixels(start + bytes(50))
