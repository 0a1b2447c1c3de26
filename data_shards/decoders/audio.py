"""Encoded sound to samples, at the file's own rate."""

import io

import numpy as np
from numpy.typing import NDArray

from data_shards.decoders.wav import wav

try:
    import miniaudio
except ImportError:
    miniaudio = None
try:
    import soundfile
except ImportError:
    soundfile = None

MAX_BYTES = 1 << 30
"""Sound of more decoded bytes is refused by what its header claims."""
REMEDY = "FLAC, MP3 and Ogg need a library: pip install 'perceiver-trainer[codecs]'"
Channels = tuple[NDArray[np.float32], int]
"""Samples (S, channels), full scale 1, and samples per second."""


def audio(data: bytes | memoryview) -> tuple[NDArray[np.float32], int]:
    """Return (samples, samples per second): float32 in [-1, 1], shape (S,), the channels averaged.

    WAV, FLAC, MP3 and what else libsndfile reads. Raises ValueError where the bytes are not sound, hold no sample, or
    hold fewer than they claim.
    """
    channels, rate = _decoded(memoryview(data))
    if not channels.size:
        raise ValueError("sound of length 0")
    samples = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("sound holds NaN or infinite samples")
    return samples, rate


def _decoded(view: memoryview) -> Channels:
    start = bytes(view[:4])
    if start == b"RIFF":
        return wav(view)
    if miniaudio is not None and start == b"fLaC":
        return _flac(bytes(view))
    if miniaudio is not None and _is_mp3(start):
        return _mp3(bytes(view))
    return _by_libsndfile(bytes(view))


def _is_mp3(start: bytes) -> bool:
    return start[:3] == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0)


def _flac(data: bytes) -> Channels:
    # miniaudio.decode() would resample to 44.1 kHz stereo unasked; these two functions keep the file's own rate.
    try:
        claimed = miniaudio.flac_get_info(data)
        _refuse_bomb(claimed.num_frames * claimed.nchannels)
        decoded = miniaudio.flac_read_f32(data)
    except (miniaudio.MiniaudioError, ZeroDivisionError) as error:  # the latter where the header says 0 Hz
        raise ValueError(f"corrupt FLAC file ({error})") from error
    return _whole(np.asarray(decoded.samples, np.float32), decoded.nchannels, decoded.sample_rate, claimed.num_frames)


def _mp3(data: bytes) -> Channels:
    try:
        decoded = miniaudio.mp3_read_f32(data)
    except (miniaudio.MiniaudioError, ZeroDivisionError) as error:
        raise ValueError(f"corrupt MP3 file ({error})") from error
    return np.asarray(decoded.samples, np.float32).reshape(-1, decoded.nchannels), decoded.sample_rate


def _by_libsndfile(data: bytes) -> Channels:
    if soundfile is None:
        raise ValueError(f"not a WAV file; {REMEDY}")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _refuse_bomb(file.frames * file.channels)
            flat = file.read(dtype="float32", always_2d=True).ravel()
            return _whole(flat, file.channels, file.samplerate, file.frames)
    except soundfile.SoundFileError as error:
        raise ValueError(f"not sound that can be read ({error})") from error


def _refuse_bomb(num_values: int) -> None:
    if num_values * 4 > MAX_BYTES:
        raise ValueError(f"sound claims {num_values} samples; at most {MAX_BYTES // 4} are decoded")


def _whole(flat: NDArray[np.float32], num_channels: int, rate: int, claimed: int) -> Channels:
    channels = flat.reshape(-1, num_channels)
    if len(channels) < claimed:
        raise ValueError(f"sound claims {claimed} samples, {len(channels)} are there")
    return channels, rate
