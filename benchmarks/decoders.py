"""What a file costs to decode, and a sample to vary, in CPU microseconds; and what the fast libraries save.

    python benchmarks/decoders.py --json decoders.json

CPU time of one thread, the smallest of several turns, since the machine may be shared.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import soundfile
from PIL import Image

from data_shards.modalities.decoding import audio as audio_decoder
from data_shards.modalities.decoding import image as image_decoder
from data_shards.modalities.decoding.image import pixels
from data_shards.modalities.decoding.points import points
from data_shards.modalities.decoding.video import video
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.transform_config import CropConfig, LogMelConfig, RandAugmentConfig
from data_shards.modalities.transforms import audio, image
from data_shards.sources.digits import Drawn

TURNS, SECONDS_A_TURN = 5, 0.3
RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures = dict(measure())
    width = max(map(len, figures))
    for name, microseconds in figures.items():
        print(f"{name:{width}} {microseconds:10.1f} us")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def measure() -> Iterator[tuple[str, float]]:
    rng = np.random.default_rng(0)
    for side in (128, 224, 500):
        picture = jpeg(side, rng)
        yield f"JPEG {side} px, simplejpeg", cost(partial(pixels, picture))
        with without(image_decoder, "simplejpeg"):
            yield f"JPEG {side} px, Pillow", cost(partial(pixels, picture))
    wave = sound("WAV", rng)
    yield "WAV 1 s", cost(lambda: audio_decoder.audio(wave))
    for kind in ("FLAC", "MP3"):
        recording = sound(kind, rng)
        yield f"{kind} 1 s, miniaudio", cost(partial(audio_decoder.audio, recording))
        with without(audio_decoder, "miniaudio"):
            yield f"{kind} 1 s, soundfile", cost(partial(audio_decoder.audio, recording))
    film = clip(rng)
    yield "MPEG-4 64 x 224 px, all frames", cost(lambda: video(film))
    yield "MPEG-4 64 x 224 px, every 8th", cost(lambda: video(film, lambda available: range(0, available, 8)))
    cloud = Drawn(0, 0, "npy").read()
    yield "npy 256 points", cost(lambda: points(cloud))
    large = jpeg(500, rng)
    plain = ImageConfig(height=224, width=224, resize="bicubic", centre_crop=0.875)
    yield "JPEG 500 px to 224, evaluation", cost(lambda: image.fit(large, plain, None))
    varied = ImageConfig(height=224, width=224, resize="bicubic", crop=CropConfig(), flip=True)
    yield "JPEG 500 px to 224, crop and flip", cost(lambda: image.fit(large, varied, rng))
    harder = ImageConfig(
        height=224, width=224, resize="bicubic", crop=CropConfig(), flip=True, randaugment=RandAugmentConfig()
    )
    yield "JPEG 500 px to 224, RandAugment", cost(lambda: image.fit(large, harder, rng))
    yield "WAV 1 s, 16 to 8 kHz", cost(lambda: audio.fit(wave, AudioConfig(sample_rate=8_000, num_samples=8_000), None))
    bands = AudioConfig(sample_rate=RATE, num_samples=RATE, log_mel=LogMelConfig(num_bins=80))
    yield "WAV 1 s, log-mel of 80 bins", cost(lambda: audio.fit(wave, bands, None))


def cost(work: Callable[[], object]) -> float:
    """Return the CPU microseconds of one call, in the best turn."""
    work()
    best = float("inf")
    for _ in range(TURNS):
        calls, start = 0, time.thread_time()
        while time.thread_time() - start < SECONDS_A_TURN:
            work()
            calls += 1
        best = min(best, (time.thread_time() - start) / calls)
    return best * 1e6


@contextmanager
def without(module: ModuleType, library: str) -> Iterator[None]:
    kept = getattr(module, library)
    setattr(module, library, None)
    try:
        yield
    finally:
        setattr(module, library, kept)


def jpeg(side: int, rng: np.random.Generator) -> bytes:
    """A picture with detail at several scales, about as large as a photograph of its size."""
    file = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), np.uint8)).resize((side, side))
    noise = rng.integers(-12, 13, (side, side, 3))
    Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def sound(kind: str, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(RATE) * 0.1) + rng.normal(0, 0.02, RATE)
    soundfile.write(file, tone, RATE, format=kind)
    return file.getvalue()


def clip(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    frame = np.asarray(Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8)).resize((224, 224)))
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 224
        stream.pix_fmt = "yuv420p"
        for number in range(64):
            moved = av.VideoFrame.from_ndarray(np.roll(frame, 2 * number, axis=1), format="rgb24")
            container.mux(stream.encode(moved))
        container.mux(stream.encode(None))
    return file.getvalue()


if __name__ == "__main__":
    main()
