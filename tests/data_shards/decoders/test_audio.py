import io

import numpy as np
import pytest

from data_shards.decoders import audio as decoder
from data_shards.decoders.audio import audio

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
    with pytest.raises(ValueError, match=r"pip install 'perceiver-trainer\[codecs\]'"):
        audio(encode(TONE, "FLAC"))
    assert len(audio(encode(TONE, "WAV"))[0]) == 4_000


@pytest.mark.parametrize("with_miniaudio", [True, False])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_a_flac_cut_short_is_refused(monkeypatch: pytest.MonkeyPatch, with_miniaudio: bool, keep: float) -> None:
    if not with_miniaudio:
        monkeypatch.setattr(decoder, "miniaudio", None)
    data = encode(np.random.default_rng(0).normal(0, 0.1, 20_000), "FLAC")
    with pytest.raises(ValueError, match=r"corrupt FLAC|claims 20000 samples|can be read"):
        audio(data[: int(len(data) * keep)])


def test_a_flac_that_claims_hours_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encode(TONE, "FLAC"))
    # STREAMINFO: 36 bits of the number of samples end 18 bytes into the block that starts at byte 8.
    data[21] |= 0x0F
    with pytest.raises(ValueError, match="claims 6"):
        audio(bytes(data))


def test_a_file_of_no_sound_is_refused() -> None:
    for data in (b"", b"ID3", b"\xff\xfb", b"OggS", b"no sound at all"):
        with pytest.raises(ValueError, match=r"sound|MP3"):
            audio(data)
