"""Images of any number of channels and bits: what is read of their files, and what becomes of it."""

import io
import logging
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_shards.config import DataConfig
from data_shards.loading.sample import BadMemberError, prepare
from data_shards.modalities.decoding.channels import Picture, bytes_of, with_channels
from data_shards.modalities.decoding.formats import tiff as tiff_decoder
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.mixup import mix_pairs
from data_shards.modalities.transform_config import ColourConfig, CropConfig, MixupConfig, RandAugmentConfig

KINDS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SIZE = 4, 6


def values(channels: int, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(channels)
    if dtype == "float32":
        return rng.normal(size=(*SIZE, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (*SIZE, channels), dtype, endpoint=True)


def png(array: np.ndarray) -> bytes:
    """Return a PNG of 8 or 16 bits, without any filter of its rows."""
    height, width, channels = array.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(array: np.ndarray, **options: Any) -> bytes:  # noqa: ANN401 - of tifffile
    file = io.BytesIO()
    whole = array[..., 0] if array.shape[-1] == 1 else array
    contig = {"planarconfig": "contig"} if whole.ndim == 3 else {}
    tifffile.imwrite(file, whole, **{"photometric": "minisblack", **contig, **options})
    return file.getvalue()


def read(content: bytes, rng: np.random.Generator | None = None, **fields: Any) -> np.ndarray:  # noqa: ANN401 - any key
    section = ImageConfig(**{"members": "x", "height": SIZE[0], "width": SIZE[1], **fields})
    assert not list(section.problems())
    array = prepare({"x": content}, DataConfig(inputs={"photo": section}), rng).arrays["photo"]
    assert (array.shape, array.dtype) == (section.shape, section.dtype)
    return array


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_channel_of_a_png_is_read_with_all_its_bits(channels: int) -> None:
    of_8, of_16 = values(channels), values(channels, "uint16")
    np.testing.assert_array_equal(read(png(of_8), num_channels=channels), of_8)
    np.testing.assert_array_equal(read(png(of_16), num_channels=channels, values="raw"), of_16.astype(np.float32))
    np.testing.assert_array_equal(
        read(png(of_8), num_channels=channels, values="unit"), of_8.astype(np.float32) / np.float32(255)
    )
    unit = read(png(of_16), num_channels=channels, values="unit")
    np.testing.assert_array_equal(unit, of_16.astype(np.float32) / np.float32(65535))
    np.testing.assert_array_equal(read(png(of_16), num_channels=channels, values="upper_bits"), of_16 // 257)


def test_sixteen_bits_never_become_eight_unasked() -> None:
    with pytest.raises(
        BadMemberError, match="image of 16 bits a value; set values=unit for all of them, or upper_bits"
    ):
        read(png(values(1, "uint16")), num_channels=1)


@pytest.mark.parametrize("asked", [1, 2, 3, 4])
@pytest.mark.parametrize("found", [1, 2, 3, 4])
def test_another_number_of_channels_becomes_what_the_table_says(found: int, asked: int) -> None:
    array = values(found)
    if asked < 3 <= found:
        with pytest.raises(BadMemberError, match=f"image of {found} channels .red, green.*; set num_channels={found}"):
            read(png(array), num_channels=asked)
        grey = np.asarray(Image.fromarray(array[..., :3]).convert("L"))
        np.testing.assert_array_equal(read(png(array), num_channels=asked, to_grey=True)[..., 0], grey)
        return
    became = read(png(array), num_channels=asked)
    expected = np.asarray(Image.fromarray(array.squeeze(), KINDS[found]).convert("RGBA"))
    np.testing.assert_array_equal(became, expected[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[asked]])


@pytest.mark.parametrize("mode", ["1", "P", "CMYK"])
def test_palettes_inks_and_black_and_white_become_the_colours_that_are_seen(mode: str) -> None:
    picture = Image.fromarray(values(3)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG" if mode == "CMYK" else "PNG")
    seen = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(read(file.getvalue()), seen)
    if mode == "1":
        np.testing.assert_array_equal(read(file.getvalue(), num_channels=1), seen[..., :1])


def test_a_grey_jpeg_is_one_channel() -> None:
    file = io.BytesIO()
    Image.fromarray(values(1)[..., 0]).save(file, "JPEG")
    decoded = np.asarray(Image.open(file))[..., None]
    np.testing.assert_array_equal(read(file.getvalue(), num_channels=1), decoded)
    np.testing.assert_array_equal(read(file.getvalue()), decoded.repeat(3, axis=2))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"planarconfig": "separate"},
        {"compression": "lzw"},
        {"compression": "zlib"},
        {"compression": "packbits"},
        {"compression": "lzma"},
        {"compression": "zstd"},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"bigtiff": True},
    ],
)
def test_a_tiff_has_any_number_of_channels_and_any_numbers(dtype: str, layout: dict[str, Any]) -> None:
    array = values(13, "float32") * 99
    array = array.clip(0, 255).astype(dtype) if dtype == "uint8" else array.astype(dtype)
    stored = np.moveaxis(array, 2, 0) if layout.get("planarconfig") == "separate" else array
    content = tiff(stored, **layout)
    np.testing.assert_array_equal(read(content, num_channels=13, values="raw"), array.astype(np.float32))
    with pytest.raises(BadMemberError, match=r"image of 13 channels, num_channels is 3; set num_channels=13$"):
        read(content)


def test_pages_of_one_size_are_channels() -> None:
    array = values(5, "float32")
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for channel in range(5):
            writer.write(array[..., channel], photometric="minisblack", contiguous=False)
    np.testing.assert_array_equal(read(file.getvalue(), num_channels=5, values="raw"), array)


def test_colours_of_a_tiff_are_those_of_any_image_and_four_bands_are_no_colours() -> None:
    rgb = values(3)
    np.testing.assert_array_equal(read(tiff(rgb, photometric="rgb")), rgb)
    grey = tiff(values(1))
    np.testing.assert_array_equal(read(grey), values(1).repeat(3, axis=2))
    for kind in ("unassalpha", "assocalpha"):
        with_alpha = tiff(values(4), photometric="rgb", extrasamples=[kind])
        np.testing.assert_array_equal(read(with_alpha), values(4)[..., :3])
    near_infrared = tiff(values(4), photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(BadMemberError, match="image of 4 channels, num_channels is 3; set num_channels=4"):
        read(near_infrared)
    np.testing.assert_array_equal(
        read(tiff(values(1)[..., 0], photometric="miniswhite"), num_channels=1), 255 - values(1)
    )


def test_a_range_of_the_file_becomes_0_to_1() -> None:
    depth = np.array([[[0], [500], [1000], [2000]]], np.uint16)
    fields = {"num_channels": 1, "values": "unit", "value_range": (0, 1000), "height": 1, "width": 4}
    assert read(png(depth), **fields).ravel().tolist() == [0, 0.5, 1, 2]
    assert read(tiff(depth.astype(np.float32)), **fields).ravel().tolist() == [0, 0.5, 1, 2]
    with pytest.raises(BadMemberError, match="image of float32 values; set value_range to those that become 0 and 1"):
        read(tiff(depth.astype(np.float32)), **{**fields, "value_range": ()})
    with pytest.raises(BadMemberError, match="image of float32 values, which are no bytes; set values=raw"):
        read(tiff(depth.astype(np.float32)), num_channels=1)


def test_numbers_that_are_not_finite_are_refused_or_become_zero() -> None:
    holes = values(2, "float32")
    holes[0, 1, 0], holes[2, 2, 1] = np.nan, np.inf
    with pytest.raises(BadMemberError, match="image with 2 of 48 values that are NaN or infinite; nan=zero takes 0"):
        read(tiff(holes), num_channels=2, values="raw")
    with pytest.raises(BadMemberError, match="image with 24 of 24 values that are NaN or infinite"):
        read(tiff(np.full((*SIZE, 1), 1e300)), num_channels=1, values="raw")
    found = read(tiff(holes), num_channels=2, values="raw", nan="zero")
    np.testing.assert_array_equal(found, np.where(np.isfinite(holes), holes, 0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("numbers", ["bytes", "raw"])
@pytest.mark.parametrize(
    "fields",
    [
        {"crop": CropConfig(), "resize": "bicubic"},
        {"flip": True, "shift_pixels": 1},
        {"colour": ColourConfig(saturation=0)},
        {"fit": "pad", "height": 8, "width": 7, "resize": "lanczos"},
        {"fit": "stretch", "height": 3, "width": 3},
    ],
)
def test_transforms_treat_every_channel_alike(channels: int, numbers: str, fields: dict[str, Any]) -> None:
    # Equal channels stay equal; colour moves all of them by one brightness and one contrast.
    array = np.repeat(values(1, "uint8" if numbers == "bytes" else "float32"), channels, axis=2)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        made = read(tiff(array), rng, num_channels=channels, values=numbers, **fields)
        np.testing.assert_allclose(made, np.repeat(made[..., :1], channels, axis=2), rtol=1e-4, atol=1e-4)


def test_one_channel_is_resized_as_each_of_three() -> None:
    array = values(3)
    fields = {"height": 9, "width": 5, "resize": "bicubic", "fit": "stretch"}
    whole = read(png(array), **fields)
    for channel in range(3):
        one = read(png(array[..., channel : channel + 1]), num_channels=1, **fields)
        np.testing.assert_array_equal(one[..., 0], whole[..., channel])


def test_floating_point_is_mixed_without_rounding() -> None:
    pair = np.stack([values(13, "float32"), values(13, "float32")[::-1]])
    mixed, targets = pair.copy(), np.eye(2, dtype=np.float32)
    mix_pairs(mixed, targets, MixupConfig(cutmix_probability=0), iter([np.random.default_rng(0)]))
    np.testing.assert_allclose(mixed[0], targets[0, 0] * pair[0] + targets[0, 1] * pair[1], rtol=1e-6)
    assert 0 < targets[0, 0] < 1


@pytest.mark.parametrize(
    ("fields", "key", "sentence"),
    [
        ({"num_channels": 0}, "num_channels", "must be at least 1"),
        ({"num_channels": 4, "randaugment": RandAugmentConfig()}, "randaugment", "use crop, flip and colour"),
        (
            {"values": "unit", "randaugment": RandAugmentConfig()},
            "randaugment",
            "got num_channels=3 and floating point",
        ),
        ({"num_channels": 1, "colour": ColourConfig()}, "colour.saturation", "set it to 0"),
        ({"value_range": (0, 1)}, "value_range", "is for values=unit, got values=bytes"),
        ({"values": "unit", "value_range": (1, 0)}, "value_range", "the lower one first"),
        ({"to_grey": True}, "to_grey", "set num_channels=1"),
        ({"values": "file"}, "values", "set bytes, unit or raw"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_key(fields: dict[str, Any], key: str, sentence: str) -> None:
    ((found, said),) = ImageConfig(**fields).problems()
    assert found == key
    assert sentence in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tiff(values(1))[:-30], "corrupt TIFF file"),
        (tiff(values(1))[:20], "TIFF file"),
        (b"II*\0", "corrupt TIFF file"),
        (tiff(np.zeros((2, 3, 1), np.complex64)), "expected real numbers"),
        (tiff(values(3), photometric="rgb", compression="jpeg"), "TIFF file packed by JPEG; write it by LZW"),
        (tiff(values(4), photometric="separated"), "TIFF file whose pixels are SEPARATED; convert it to grey"),
        (png(values(3, "uint16"))[:-40], "corrupt image"),
    ],
)
def test_what_is_no_such_image_is_a_bad_sample(content: bytes, sentence: str) -> None:
    with pytest.raises(BadMemberError, match=sentence):
        read(content, values="raw")


def test_a_missing_library_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_decoder, "tifffile", None)
    with pytest.raises(BadMemberError, match=r"^\.x: TIFF needs a library: pip install tifffile imagecodecs$"):
        read(tiff(values(1)))


def test_images_of_more_pixels_than_are_decoded_are_refused_unread() -> None:
    content = bytearray(tiff(values(1)))
    place = content.index(struct.pack("<HHI", 256, 4, 1))
    content[place + 8 : place + 12] = struct.pack("<I", 2**31)
    with pytest.raises(BadMemberError, match="image claims 2147483648 x 4 pixels"):
        read(bytes(content), num_channels=1)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_grey_of_more_than_eight_bits_is_the_luma_of_bt_601(dtype: str) -> None:
    colours = (np.eye(3) * 1000)[None].astype(dtype)
    grey = with_channels(Picture(colours), 1, to_grey=True)
    assert grey.dtype == colours.dtype
    assert grey[0, :, 0].tolist() == pytest.approx([299, 587, 114])


@pytest.mark.parametrize(("dtype", "opaque"), [("uint8", 255), ("uint16", 65535), ("float32", 1), ("int16", 1)])
def test_what_has_no_alpha_is_opaque_in_every_kind_of_number(dtype: str, opaque: int) -> None:
    grey, colours = np.full((1, 2, 1), 7, dtype), np.full((1, 2, 3), [1, 2, 3], dtype)
    found = {asked: with_channels(Picture(grey), asked) for asked in (1, 2, 3, 4)}
    assert {asked: array[0, 0].tolist() for asked, array in found.items()} == {
        1: [7],
        2: [7, opaque],
        3: [7, 7, 7],
        4: [7, 7, 7, opaque],
    }
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    assert with_channels(Picture(colours), 4)[0, 1].tolist() == [1, 2, 3, opaque]
    assert with_channels(Picture(np.full((1, 1, 2), [7, 5], dtype)), 4)[0, 0].tolist() == [7, 7, 7, 5]


@pytest.mark.parametrize(
    ("found", "asked", "is_usual", "sentence"),
    [
        (
            3,
            1,
            True,
            "image of 3 channels (red, green and blue), num_channels is 1; set num_channels=3, or to_grey=true",
        ),
        (
            4,
            2,
            True,
            "image of 4 channels (red, green, blue and alpha), num_channels is 2; set num_channels=4, or to_grey",
        ),
        (4, 3, False, "image of 4 channels, num_channels is 3; set num_channels=4"),
        (5, 2, True, "image of 5 channels, num_channels is 2; set num_channels=5"),
        (1, 5, True, "image of 1 channel (grey), num_channels is 5; set num_channels=1"),
        (2, 5, True, "image of 2 channels (grey and alpha), num_channels is 5; set num_channels=2"),
    ],
)
def test_channels_that_do_not_become_others_are_told_by_what_they_mean(
    found: int, asked: int, is_usual: bool, sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}") as refused:
        with_channels(Picture(np.zeros((1, 1, found), np.uint8), is_usual), asked)
    assert ("to_grey" in str(refused.value)) == ("to_grey" in sentence)
    same = Picture(np.zeros((1, 1, found), np.uint8), is_usual)
    assert with_channels(same, found) is same.values


def test_numbers_of_eight_and_sixteen_bits_alone_are_bytes() -> None:
    assert bytes_of(np.array([0, 256, 257, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
    assert bytes_of(np.array([0, 255], np.uint8)).tolist() == [0, 255]
    for dtype in (np.int16, np.float32, np.uint32):
        with pytest.raises(ValueError, match="values, which are no bytes; set values=raw, or unit with value_range"):
            bytes_of(np.zeros(2, dtype))


def test_grey_of_colours_keeps_alpha() -> None:
    array = values(4)
    grey = with_channels(Picture(array), 2, to_grey=True)
    np.testing.assert_array_equal(grey[..., 1], array[..., 3])
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(array[..., :3]).convert("L")))
    exact = with_channels(Picture(np.array([[[0.5, 0.25, 1.0]]])), 1, to_grey=True)
    assert exact[0, 0, 0] == pytest.approx(0.299 * 0.5 + 0.587 * 0.25 + 0.114)


def test_smaller_copies_and_masks_of_a_tiff_are_skipped_and_pages_of_two_sizes_are_refused() -> None:
    def pages(*sizes: tuple[int, int], subfile: int = 0, at: tuple[int, ...] = (1,)) -> bytes:
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            for number, size in enumerate(sizes):
                writer.write(
                    np.full(size, number + 1, np.uint8),
                    photometric="minisblack",
                    contiguous=False,
                    subfiletype=subfile if number in at else 0,
                )
        return file.getvalue()

    smaller = pages((4, 6), (2, 3), subfile=1)
    # What a page is, tag 254: 1 is a smaller copy, 4 a mask.
    mask = smaller.replace(struct.pack("<HHII", 254, 4, 1, 1), struct.pack("<HHII", 254, 4, 1, 4))
    assert mask != smaller
    for content in (smaller, mask):
        found = tiff_decoder.tiff(content, 100)
        assert (found.values.shape, found.is_usual) == ((4, 6, 1), True)
    two = tiff_decoder.tiff(pages((4, 6), (4, 6)), 100)
    assert (two.values[0, 0].tolist(), two.is_usual) == ([1, 2], False)
    # A smaller copy behind each page, as microscopes write them.
    copied = tiff_decoder.tiff(pages((4, 6), (2, 3), (4, 6), (2, 3), subfile=1, at=(1, 3)), 100)
    assert copied.values[0, 0].tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"pages of shapes \(4, 6\) and \(2, 3\); write one image a file"):
        tiff_decoder.tiff(pages((4, 6), (2, 3)), 100)
    with pytest.raises(ValueError, match="image claims 6 x 4 pixels; at most 23 are decoded"):
        tiff_decoder.tiff(pages((4, 6)), 23)
    assert tiff_decoder.tiff(pages((4, 6)), 24).values.shape == (4, 6, 1)


def test_a_tiff_has_a_greatest_number_of_pages_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(3):
            writer.write(values(1, "uint16")[..., 0], photometric="minisblack", contiguous=False)
    content, num_bytes = file.getvalue(), 3 * 2 * SIZE[0] * SIZE[1]
    monkeypatch.setattr(tiff_decoder, "MAX_PAGES", 3)
    monkeypatch.setattr(tiff_decoder, "MAX_BYTES", num_bytes)
    assert tiff_decoder.tiff(content, 100).values.shape == (*SIZE, 3)
    monkeypatch.setattr(tiff_decoder, "MAX_BYTES", num_bytes - 1)
    with pytest.raises(ValueError, match=f"claims {num_bytes} bytes of pixels; at most {num_bytes - 1} are decoded"):
        tiff_decoder.tiff(content, 100)
    monkeypatch.setattr(tiff_decoder, "MAX_PAGES", 2)
    with pytest.raises(ValueError, match="TIFF file of more than 2 pages"):
        tiff_decoder.tiff(content, 100)


def test_black_and_white_of_a_tiff_are_0_and_255_and_white_may_be_0() -> None:
    bits = np.array([[True, False, True]])
    assert tiff_decoder.tiff(tiff(bits[..., None]), 100).values.tolist() == [[[255], [0], [255]]]
    assert tiff_decoder.tiff(tiff(bits[..., None], photometric="miniswhite"), 100).values.tolist() == [
        [[0], [255], [0]]
    ]
    deep = np.array([[[0], [1000]]], np.uint16)
    found = tiff_decoder.tiff(tiff(deep, photometric="miniswhite"), 100)
    assert found.values.tolist() == [[[65535], [64535]]]
    with pytest.raises(ValueError, match="in which white is 0, of other numbers than bytes or 16 bits; convert it"):
        tiff_decoder.tiff(tiff(deep.astype(np.float32), photometric="miniswhite"), 100)


def test_an_odd_tiff_says_nothing_to_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("tifffile").setLevel(logging.DEBUG)
    with pytest.raises(ValueError, match="TIFF"):
        tiff_decoder.tiff(tiff(values(1))[:-30], 100)
    logging.getLogger("tifffile").critical("of a file")
    assert caplog.records == []
