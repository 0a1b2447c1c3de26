import io
import struct
import wave
from collections.abc import Callable

import numpy as np
import pytest

from data_shards.modalities.decoding.audio import audio

TONE = np.sin(np.linspace(0, 20, 400)) * 0.9


def wav(payload: bytes, kind: int = 1, num_channels: int = 1, bits: int = 16, rate: int = 8_000) -> bytes:
    frame_bytes = num_channels * bits // 8
    header = struct.pack("<HHIIHH", kind, num_channels, rate, rate * frame_bytes, frame_bytes, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize(
    ("kind", "bits", "encode", "tolerance"),
    [
        (1, 8, lambda x: (np.round(x * 127) + 128).astype(np.uint8).tobytes(), 2 / 127),
        (1, 16, lambda x: np.round(x * 32767).astype("<i2").tobytes(), 1 / 2**14),
        (1, 24, lambda x: np.round(x * (2**23 - 1)).astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes(), 1e-6),
        (1, 32, lambda x: np.round(x * (2**31 - 1)).astype("<i4").tobytes(), 1e-6),
        (3, 32, lambda x: x.astype("<f4").tobytes(), 1e-7),
        (3, 64, lambda x: x.astype("<f8").tobytes(), 1e-7),
    ],
)
def test_every_sample_format_gives_the_tone(
    kind: int, bits: int, encode: Callable[[np.ndarray], bytes], tolerance: float
) -> None:
    # Tolerances: two steps of the quantisation that the format itself makes (full scale is 127 or 128).
    samples, rate = audio(wav(encode(TONE), kind, bits=bits))
    assert rate == 8_000
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, TONE, atol=tolerance)


def test_the_parser_agrees_with_the_standard_library() -> None:
    encoded = io.BytesIO()
    with wave.open(encoded, "wb") as file:
        file.setparams((2, 2, 44_100, 0, "NONE", ""))
        file.writeframes(np.arange(-600, 600, dtype="<i2").tobytes())
    samples, rate = audio(encoded.getvalue())
    assert rate == 44_100
    np.testing.assert_array_equal(samples, np.arange(-600, 600).reshape(-1, 2).mean(axis=1) / 32_768)


def test_chunks_before_the_samples_are_passed_over_with_their_padding() -> None:
    plain = wav(TONE.astype("<f4").tobytes(), 3, bits=32)
    with_note = plain[:36] + b"LIST\x03\x00\x00\x00abc\x00" + plain[36:]
    np.testing.assert_array_equal(audio(with_note)[0], audio(plain)[0])


def test_a_streamed_file_of_unknown_length_goes_on_to_its_end() -> None:
    plain = wav(bytes(20))
    streamed = plain[:40] + b"\xff\xff\xff\xff" + plain[44:]
    assert len(audio(streamed)[0]) == 10


def extensible(payload: bytes, kind: int, bits: int, header_bytes: int = 40) -> bytes:
    """A file whose header says where its true kind is: behind the bits of a sample and the loudspeakers."""
    plain = wav(payload, 0xFFFE, bits=bits)
    extension = struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", kind) + bytes(14)
    header = (plain[20:36] + extension)[:header_bytes]
    return plain[:16] + struct.pack("<I", len(header)) + header + plain[36:]


@pytest.mark.parametrize("header_bytes", [40, 26])
def test_a_header_with_an_extension_has_the_kind_there(header_bytes: int) -> None:
    whole, parts = (TONE * 32767).astype("<i2").tobytes(), TONE.astype("<f4").tobytes()
    for payload, kind, bits in ((whole, 1, 16), (parts, 3, 32)):
        found, expected = extensible(payload, kind, bits, header_bytes), wav(payload, kind, bits=bits)
        np.testing.assert_array_equal(audio(found)[0], audio(expected)[0])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (wav(b""), "length 0"),
        (wav(bytes(100))[:-10], "claims 100 bytes, 90 are there"),
        (b"RIFF\x04\x00\x00\x00WAVE", "complete format"),
        (b"", "not sound"),
        (wav(bytes(8), num_channels=0), "contradicts itself"),
        (wav(bytes(8), kind=353), "kind 353"),
        (extensible(bytes(8), 353, 16), "kind 353"),
        (extensible(bytes(8), 1, 16, header_bytes=25), "kind 65534"),
        (wav(b"")[:12] + wav(b"")[36:], "complete format"),
        (wav(np.array([0, np.nan], "<f4").tobytes(), 3, bits=32), "NaN"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        audio(data)


def test_chunks_without_end_are_refused_before_they_cost_time() -> None:
    plain = wav(bytes(20))
    empty = b"LIST" + bytes(4)
    assert len(audio(plain[:36] + empty * 9_998 + plain[36:])[0]) == 10
    with pytest.raises(ValueError, match="WAV of more than 10000 chunks"):
        audio(plain[:36] + empty * 10_000 + plain[36:])


@pytest.mark.parametrize(("num_channels", "num_bytes"), [(1, 5), (2, 10), (2, 11)])
def test_samples_that_are_not_whole_at_the_end_are_dropped(num_channels: int, num_bytes: int) -> None:
    payload = np.full(num_bytes, 0x40, np.uint8).tobytes()
    assert audio(wav(payload, num_channels=num_channels))[0].tolist() == [0x4040 / 2**15] * 2


@pytest.mark.parametrize(
    ("kind", "bits", "payload", "samples"),
    [
        (1, 8, b"\x00\x80\xff", [-1, 0, 127 / 128]),
        (1, 16, b"\x00\x80\x00\x00\xff\x7f", [-1, 0, 32767 / 32768]),
        (1, 24, b"\x00\x00\x80\x00\x00\x00\x00\x00\x40", [-1, 0, 0.5]),
        (1, 32, b"\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x40", [-1, 0, 0.5]),
    ],
)
def test_full_scale_is_one(kind: int, bits: int, payload: bytes, samples: list[float]) -> None:
    assert audio(wav(payload, kind, bits=bits))[0].tolist() == samples


@pytest.mark.parametrize(("rate", "is_taken"), [(1, True), (768_000, True), (768_001, False)])
def test_a_rate_is_one_that_converters_reach(rate: int, is_taken: bool) -> None:
    if is_taken:
        assert audio(wav(bytes(4), rate=rate))[1] == rate
    else:
        with pytest.raises(ValueError, match="sound claims 768001 samples per second; expected 1 to 768000"):
            audio(wav(bytes(4), rate=rate))


@pytest.mark.parametrize(
    ("size", "num_bytes"),
    [(b"\0\0\0\0", 0), (b"\1\0\0\0", 1 << 21), (b"\0\0\1\1", 129), (b"\0\1\0\0", 1 << 14), (b"\0\0\x81\x81", 129)],
)
def test_a_tag_before_a_recording_is_as_long_as_seven_bits_of_each_byte_say(size: bytes, num_bytes: int) -> None:
    plain = wav(np.arange(9, dtype="<i2").tobytes())
    tagged = b"ID3\4\0\0" + size + bytes(num_bytes) + plain
    np.testing.assert_array_equal(audio(tagged)[0], audio(plain)[0])
