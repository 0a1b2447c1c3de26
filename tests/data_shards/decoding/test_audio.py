import io

import numpy as np
import pytest

from data_shards.modalities.decoding import audio as decoder
from data_shards.modalities.decoding.audio import audio

soundfile = pytest.importorskip("soundfile")
TONE = 0.5 * np.sin(np.arange(4_000) * 0.3)
STEREO = np.stack([TONE, TONE / 2], axis=1)


def encode(samples: np.ndarray, kind: str, rate: int = 11_025, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_flac_gives_its_samples_at_its_own_rate(subtype: str) -> None:
    samples, rate = audio(encode(STEREO, "FLAC", subtype=subtype))
    assert rate == 11_025
    np.testing.assert_allclose(samples, TONE * 0.75, atol=1 / 2**15)


@pytest.mark.parametrize("kind", ["MP3", "OGG"])
def test_a_lossy_file_gives_its_tone_at_its_own_rate(kind: str) -> None:
    samples, rate = audio(encode(TONE, kind))
    assert rate == 11_025
    assert len(samples) == len(TONE)
    # 8 % of the loudness: what a lossy codec does to a tone; another rate or offset would differ by 100 %.
    middle = slice(1_000, 3_000)
    assert np.sqrt(np.mean((samples[middle] - TONE[middle]) ** 2)) < 0.08 * 0.5


@pytest.mark.parametrize(("kind", "tolerance"), [("FLAC", 0), ("MP3", 1e-4), ("OGG", 0)])
def test_both_libraries_give_the_same_samples(monkeypatch: pytest.MonkeyPatch, kind: str, tolerance: float) -> None:
    # Two MP3 decoders round differently; one step of 16 bits is 3e-5.
    data = encode(STEREO, kind)
    fast, rate = audio(data)
    monkeypatch.setattr(decoder, "miniaudio", None)
    slow, same_rate = audio(data)
    assert rate == same_rate
    np.testing.assert_allclose(fast, slow, atol=tolerance)


def test_without_the_libraries_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "miniaudio", None)
    monkeypatch.setattr(decoder, "soundfile", None)
    with pytest.raises(ValueError, match=r"pip install soundfile miniaudio"):
        audio(encode(TONE, "FLAC"))
    assert len(audio(encode(TONE, "WAV"))[0]) == 4_000


@pytest.mark.parametrize("with_miniaudio", [True, False])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_a_flac_cut_short_is_refused(monkeypatch: pytest.MonkeyPatch, with_miniaudio: bool, keep: float) -> None:
    if not with_miniaudio:
        monkeypatch.setattr(decoder, "miniaudio", None)
    data = encode(np.random.default_rng(0).normal(0, 0.1, 20_000), "FLAC")
    with pytest.raises(ValueError, match=r"corrupt FLAC|claims 20000 samples|corrupt sound in FLAC"):
        audio(data[: int(len(data) * keep)])


def test_a_flac_that_claims_hours_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encode(TONE, "FLAC"))
    # STREAMINFO: 36 bits of the number of samples end 18 bytes into the block that starts at byte 8.
    data[21] |= 0x0F
    with pytest.raises(ValueError, match="claims 6"):
        audio(bytes(data))


def without_length(flac: bytes) -> bytes:
    """The header as programs leave it that write into a pipe: the 36 bits of the number of samples are 0."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def test_a_flac_of_unknown_length_is_read_to_its_end() -> None:
    data = encode(STEREO, "FLAC")
    np.testing.assert_array_equal(audio(without_length(data))[0], audio(data)[0])


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "WAV"])
def test_decoding_ends_at_the_limit_whatever_the_header_says(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    silence = encode(np.zeros(1_000_000), kind, rate=48_000)
    data = without_length(silence) if kind == "FLAC" else silence
    assert len(audio(data)[0]) == 1_000_000
    monkeypatch.setattr(decoder, "MAX_SAMPLES", 100_000)
    with pytest.raises(ValueError, match="at most 100000 are decoded") as refused:
        audio(data)
    if kind != "WAV":  # whose length is known before
        assert "1310" in str(refused.value), "two blocks were enough to know it"


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "OGG", "WAV"])
def test_the_limit_is_of_all_channels_together(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = encode(STEREO, kind)
    monkeypatch.setattr(decoder, "MAX_SAMPLES", 8_000)
    assert len(audio(data)[0]) == 4_000
    monkeypatch.setattr(decoder, "MAX_SAMPLES", 7_999)
    with pytest.raises(ValueError, match="at most 7999 are decoded"):
        audio(data)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "ULAW", "ALAW", "GSM610"])
def test_a_coded_wav_is_read(subtype: str) -> None:
    samples, rate = audio(encode(TONE, "WAV", 8_000, subtype))
    assert rate == 8_000
    # Four bits a sample, GSM still fewer: a fifth of the loudness; noise instead would differ by all of it.
    assert np.sqrt(np.mean((samples[1_000:3_000] - TONE[1_000:3_000]) ** 2)) < 0.2 * 0.5


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\xff\xf1\x50\x80\x1e\x7f", "AAC"),
        (b"ID3\x04\0\0\0\0\0\x02ab\xff\xf9\x50\x80", "AAC"),
        (b"\0\0\0\x1cftypM4A ", "M4A"),
        (b"FORM\0\0\0\x08AIFF", "AIFF"),
        (b"caff\0\1\0\0", "CAF"),
        (b".snd\0\0\0\x18", "AU"),
        (b"\x1aE\xdf\xa3", "WebM"),
        (b"0&\xb2u\x8ef\xcf\x11", "WMA"),
    ],
)
def test_another_format_is_called_by_its_name(start: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=f"{what}.*expected WAV, FLAC, MP3 or Ogg: convert it"):
        audio(start + bytes(500))


def test_a_flac_behind_an_mp3s_tag_is_a_flac() -> None:
    data = encode(TONE, "FLAC")
    tag = b"ID3\x04\0\0\0\0\1\0" + bytes(128)
    for tags in (tag, tag + tag):
        np.testing.assert_array_equal(audio(tags + data)[0], audio(data)[0])


@pytest.mark.parametrize("rate", [0, 768_001, 2**31])
def test_a_rate_that_no_recorder_has_is_refused(rate: int) -> None:
    data = bytearray(encode(TONE, "WAV"))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(ValueError, match=r"samples per second|contradicts itself"):
        audio(bytes(data))


def test_a_file_of_no_sound_is_refused() -> None:
    for data in (b"", b"\xff", b"ID3", b"\xff\xfb", b"OggS", b"no sound at all"):
        with pytest.raises(ValueError, match=r"sound|MP3"):
            audio(data)
