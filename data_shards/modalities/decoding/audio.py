"""Encoded audio to samples at the file's own rate. The bytes decide the format; only those below are opened."""

import io
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from data_shards.files.quoting import counted
from data_shards.modalities.decoding.formats.wav import chunks_of, coding, wav

try:
    import miniaudio
except ImportError:
    miniaudio = None
try:
    import soundfile
except ImportError:
    soundfile = None

MAX_SAMPLES = 1 << 27
"""Decoding ends at so many samples, all channels together: 50 minutes of 44.1 kHz mono, half a GiB."""
MAX_RATE = 768_000
"""The maximum sample rate, in Hz: the highest that converters reach."""
REMEDY = "FLAC, MP3, Ogg and coded WAV need a library: pip install soundfile miniaudio"
Channels = tuple[NDArray[np.float32], int]
"""Samples (S, channels), full scale 1, and samples per second."""
_BLOCK = 1 << 16
"""Samples of a channel that are decoded at a time where the length is unknown."""
_CODED_WAV = frozenset({0x02, 0x06, 0x07, 0x11, 0x31})
"""ADPCM by Microsoft, A-law, mu-law, ADPCM by IMA, and GSM 6.10."""
_OTHERS = MappingProxyType(
    {
        b"FORM": "AIFF",
        b"caff": "CAF",
        b".snd": "AU",
        b"wvpk": "WavPack",
        b"MAC ": "Monkey's Audio",
        b"#!AM": "AMR",
        b"0&\xb2u": "WMA",
        b"\x1aE\xdf\xa3": "Matroska or WebM",
    }
)
"""Formats that often have another format's suffix, by their first bytes."""


def audio(data: bytes | memoryview) -> tuple[NDArray[np.float32], int]:
    """Return (samples, samples per second): float32 in [-1, 1], shape (S,), the channels averaged."""
    channels, rate = recording(data)
    return with_channels(channels, 1)[:, 0], rate


def with_channels(channels: NDArray[np.float32], asked: int) -> NDArray[np.float32]:
    """Return as many channels as asked, (S, asked): one is the mean of all, and of one come several that are equal.

    ValueError for any other number: nothing says which of the channels those would be.
    """
    found = channels.shape[1]
    if found == asked:
        return channels
    if asked == 1:
        mean: NDArray[np.float32] = channels.mean(axis=1, dtype=np.float32, keepdims=True)
        return _finite(mean)
    if found == 1:
        return np.repeat(channels, asked, axis=1)
    raise ValueError(
        f"sound of {counted(found, 'channel')}, num_channels is {asked}; set num_channels={found}, or 1 for their mean"
    )


def recording(data: bytes | memoryview) -> Channels:
    """Return (samples, samples per second): float32 in [-1, 1], shape (S, channels).

    Reads WAV, FLAC, MP3 and Ogg (Vorbis, Opus), whatever the member is called. Raises ValueError where the bytes are
    none of these, hold no sample, fewer than they claim, or more than MAX_SAMPLES.
    """
    channels, rate = _decoded(memoryview(data))
    if not channels.size:
        raise ValueError("sound of length 0")
    if not 0 < rate <= MAX_RATE:
        raise ValueError(f"sound claims {rate} samples per second; expected 1 to {MAX_RATE}")
    return _finite(channels), rate


def _finite(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    # A WAV of floats may hold any of them.
    if not np.isfinite(samples).all():
        raise ValueError("sound holds NaN or infinite samples")
    return samples


def _decoded(view: memoryview) -> Channels:
    # Any format may follow a tag of ID3, though MP3 mostly does.
    untagged = _without_id3(view)
    start = bytes(untagged[:4])
    if start == b"RIFF":
        chunks = chunks_of(untagged)
        is_plain = coding(chunks) not in _CODED_WAV
        return wav(chunks, MAX_SAMPLES) if is_plain else _by_libsndfile(bytes(untagged), "WAV")
    if start == b"fLaC":
        return _flac(bytes(untagged)) if miniaudio is not None else _by_libsndfile(bytes(untagged), "FLAC")
    if start in (b"RIFX", b"RF64"):
        return _by_libsndfile(bytes(untagged), "WAV")
    if start == b"OggS":
        return _by_libsndfile(bytes(untagged), "Ogg")
    if _is_mp3(start):
        return _mp3(bytes(view)) if miniaudio is not None else _by_libsndfile(bytes(view), "MP3")
    raise ValueError(_what_it_is(bytes(untagged[:12])))


def _without_id3(view: memoryview) -> memoryview:
    """Return what follows the tag, whose length is four bytes of seven bits each (id3.org/id3v2.4.0-structure)."""
    # Some programs write a second tag before the first one.
    while bytes(view[:3]) == b"ID3" and len(view) >= 10:
        length = 0
        for byte in view[6:10]:
            length = length << 7 | byte & 0x7F
        view = view[10 + length :]
    return view


def _is_mp3(start: bytes) -> bool:
    # Eleven bits of synchronisation; a layer of 0 would be AAC.
    return len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0 and start[1] & 0x06 != 0


def _what_it_is(start: bytes) -> str:
    """Return the sentence about bytes that are no sound that is read."""
    found = _OTHERS.get(start[:4])
    if start[4:8] == b"ftyp":
        found = "MPEG-4 (M4A, mostly AAC)"
    # ADTS: twelve bits of synchronisation and a layer of 0.
    elif len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        found = "AAC"
    expected = "expected WAV, FLAC, MP3 or Ogg"
    if found:
        return f"sound in {found}, whatever its name; {expected}: convert it, as by ffmpeg -i OLD NEW.flac"
    return f"not sound: it begins with {start!r}; {expected}"


def _flac(data: bytes) -> Channels:
    # miniaudio.decode() would resample to 44.1 kHz stereo unasked; these functions keep the file's own rate.
    try:
        claimed = miniaudio.flac_get_info(data)
        _refuse_bomb(claimed.num_frames * claimed.nchannels)
        # Programs that write into a pipe leave the length at 0, and decoding would go on to whatever end there is.
        samples = miniaudio.flac_read_f32(data).samples if claimed.num_frames else _streamed(data, claimed)
    except (miniaudio.MiniaudioError, ZeroDivisionError) as error:  # the latter where the header says 0 Hz
        raise ValueError(f"corrupt FLAC file ({error})") from error
    return _whole(np.asarray(samples, np.float32), claimed.nchannels, claimed.sample_rate, claimed.num_frames)


def _mp3(data: bytes) -> Channels:
    try:
        claimed = miniaudio.mp3_get_info(data)
        samples = _streamed(data, claimed)
    except (miniaudio.MiniaudioError, ZeroDivisionError) as error:
        raise ValueError(f"corrupt MP3 file ({error})") from error
    return samples.reshape(-1, claimed.nchannels), claimed.sample_rate


def _streamed(data: bytes, claimed: "miniaudio.SoundFileInfo") -> NDArray[np.float32]:
    """Return the samples, interleaved, decoded block by block: a header may say nothing of them, or lie."""
    kind = miniaudio.SampleFormat.FLOAT32
    blocks = miniaudio.stream_memory(data, kind, claimed.nchannels, claimed.sample_rate, _BLOCK)
    return _joined(np.frombuffer(block, np.float32) for block in blocks)


def _by_libsndfile(data: bytes, kind: str) -> Channels:
    if soundfile is None:
        raise ValueError(f"not a plain WAV file; {REMEDY}")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            claimed = file.frames
            _refuse_bomb(claimed * file.channels)
            # As many as are claimed, then one that is empty.
            blocks = iter(lambda: file.read(_BLOCK, dtype="float32", always_2d=True).ravel().tobytes(), b"")
            flat = _joined(np.frombuffer(block, np.float32) for block in blocks)
            return _whole(flat, file.channels, file.samplerate, claimed)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"corrupt sound in {kind} ({error.error_string})") from error


def _joined(blocks: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    held: list[NDArray[np.float32]] = []
    num_samples = 0
    for block in blocks:
        held.append(block)
        num_samples += block.size
        _refuse_bomb(num_samples)
    return np.concatenate(held) if held else np.zeros(0, np.float32)


def _refuse_bomb(num_samples: int) -> None:
    if num_samples > MAX_SAMPLES:
        raise ValueError(f"sound claims {num_samples} samples; at most {MAX_SAMPLES} are decoded: cut it into pieces")


def _whole(flat: NDArray[np.float32], num_channels: int, rate: int, claimed: int) -> Channels:
    channels = flat.reshape(-1, num_channels)
    if len(channels) < claimed:
        raise ValueError(f"sound claims {counted(claimed, 'sample')}, {len(channels)} are there")
    return channels, rate
