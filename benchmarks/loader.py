"""How near the loader comes to the disk cache and to the codecs, and how far it leaves webdataset behind.

    python benchmarks/loader.py --json loader.json

20 000 samples of a JPEG (64 to 224 px) and 1 s of audio, page cache warm. Ratios are of figures from one run, taken in
turns and each the best of its turns, since the machine may be shared; decoding is counted in samples a CPU-second.
webdataset hands on the tensors of a batch as a list, as it comes; with torch's collate function in its workers it is
measured as well. Pictures are brought to one size by the nearest pixel in all of them: what is compared is the way.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.arguments import at_least
from data_shards.building import adoption
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.loading.loader.loader import Loader
from data_shards.loading.reader import Reader
from data_shards.loading.streams import live_bytes, train_loader
from data_shards.modalities.decoding.audio import audio
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.transforms.image import fit as fit_image
from data_shards.order.sample_order import TrainOrder
from data_shards.storage.local_folder import LocalFolder

NUM_SHARDS, SAMPLES_PER_SHARD, RATE = 40, 500, 16_000
NUM_SAMPLES = NUM_SHARDS * SAMPLES_PER_SHARD
PIXELS = 128
BATCH = 256
LIVE_BYTES = 512 << 20
RAW_READINGS, RAW_WARM_UP = 6, 4
"""In a turn: one takes 0.1 s, which the rest of the machine disturbs more than it does the seconds of decoding."""
TARGETS = {
    "raw_vs_cat": 0.55,
    "raw_vs_webdataset": 9,
    "decoded_vs_codecs": 0.70,
    "decoded_vs_webdataset": 4,
    "resume_seconds": 1,
    "memory_growth": 0.05,
}


def main() -> None:
    arguments = parse()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not (arguments.folder / "manifest.json").is_file():
        make_shards(arguments.folder)
    tars = [str(path) for path in sorted((arguments.folder / "train").glob("*.tar"))]
    figures = measure(arguments.folder, tars, arguments.turns)
    figures |= resume(arguments.folder)
    figures["memory_growth"] = memory_growth(arguments.folder, arguments.epochs)
    figures |= {
        "raw_vs_cat": figures["raw_mb_s"] / figures["cat_mb_s"],
        "raw_vs_webdataset": figures["raw_mb_s"] / figures["webdataset_raw_mb_s"],
        "decoded_vs_codecs": figures["decoded_per_cpu_s"] / figures["codecs_per_cpu_s"],
        "decoded_vs_webdataset": figures["decoded_per_cpu_s"] / figures["webdataset_per_cpu_s"],
        "decoded_vs_webdataset_collated": figures["decoded_per_cpu_s"] / figures["webdataset_collated_per_cpu_s"],
    }
    for name, figure in figures.items():
        target = f"target {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:32} {figure:12.3f}  {target}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--turns", type=at_least(1), default=6, help="times that each figure is taken")
    parser.add_argument(
        "--epochs", type=at_least(3), default=20, help="epochs over which memory is watched; the first two do not count"
    )
    folder = Path(tempfile.gettempdir()) / "perceiver_benchmark_loader"
    parser.add_argument("--folder", type=Path, default=folder, help="where the shards are kept for the next time")
    return parser.parse_args()


def measure(folder: Path, tars: list[str], turns: int) -> dict[str, float]:
    """Take every figure in each turn, and return the best of each."""
    megabytes = sum(Path(path).stat().st_size for path in tars) / 1e6
    encoded = encoded_samples(folder, 2_000)
    taken: dict[str, list[float]] = {}

    def take(name: str, amount: float, clock: Callable[[], float], work: Callable[[], object]) -> None:
        start = clock()
        work()
        taken.setdefault(name, []).append(amount / (clock() - start))

    for _ in range(turns):
        for name, rates in in_own_process(f"raw_rates({str(folder)!r})").items():
            taken.setdefault(name, []).extend(rates)
        take("webdataset_raw_mb_s", megabytes, time.perf_counter, lambda: webdataset_raw(tars))
        take("codecs_per_cpu_s", len(encoded), cpu_seconds, lambda: codecs_alone(encoded))
        with open_loader(folder) as loader:
            decoded(loader, 0)
            take("decoded_per_cpu_s", NUM_SAMPLES, cpu_seconds, partial(decoded, loader, 1))
            take("decoded_per_s", NUM_SAMPLES, time.perf_counter, partial(decoded, loader, 2))
        take("webdataset_per_cpu_s", NUM_SAMPLES, cpu_seconds, lambda: webdataset_decoded(tars, list))
        take("webdataset_collated_per_cpu_s", NUM_SAMPLES, cpu_seconds, lambda: webdataset_decoded(tars, None))
    best = {name: max(figures) for name, figures in taken.items()}
    return best | {"raw_mb_s": max(best["raw_one_thread_mb_s"], best["raw_two_threads_mb_s"])}


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def cat(tars: list[str]) -> None:
    subprocess.run(["cat", *tars], stdout=subprocess.DEVNULL, check=True)


def config() -> DataConfig:
    image = ImageConfig(height=PIXELS, width=PIXELS, resize="nearest")
    audio = AudioConfig(sample_rate=RATE, num_samples=RATE)
    return DataConfig(inputs={"image": image, "audio": audio}, lanes=8, window=1024, num_threads=2)


def open_loader(folder: Path) -> Loader:
    return train_loader(replace(config(), shards=str(folder)), seed=0, global_batch=BATCH)


def order_of(folder: Path) -> TrainOrder:
    return TrainOrder(manifest.read(folder).split("train"), 0, BATCH, 8, 1024)


def raw_rates(folder: str) -> dict[str, list[float]]:
    """Return MB/s of `cat` and of raw reading, in turns, once the memory of reader and loader is in use."""
    tars = [str(path) for path in sorted((Path(folder) / "train").glob("*.tar"))]
    megabytes = sum(Path(path).stat().st_size for path in tars) / 1e6
    raw, epochs = RawReading(Path(folder)), count()
    for _ in range(RAW_WARM_UP):
        raw.read(next(epochs), 2)
    ways: dict[str, Callable[[], None]] = {
        "cat_mb_s": lambda: cat(tars),
        "raw_one_thread_mb_s": lambda: raw.read(next(epochs), 1),
        "raw_two_threads_mb_s": lambda: raw.read(next(epochs), 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RAW_READINGS):
        for name, read in ways.items():
            start = time.perf_counter()
            read()
            rates[name].append(megabytes / (time.perf_counter() - start))
    return rates


class RawReading:
    """Reads epochs in their order, every checksum checked, a batch a thread as the loader does."""

    def __init__(self, folder: Path) -> None:
        self._order = order_of(folder)
        split = manifest.read(folder).split("train")
        self._reader = Reader(LocalFolder(folder), split, live_bytes=live_bytes(split, self._order, 1))

    def read(self, epoch: int, num_threads: int) -> None:
        steps = self._order.steps_per_epoch
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(self._read_batch, range(epoch * steps, (epoch + 1) * steps)))

    def _read_batch(self, step: int) -> None:
        slots = self._order.slots(step, 0, BATCH)
        shards, samples = slots.shard.tolist(), slots.sample.tolist()
        self._reader.read_ahead(shards, samples)
        for shard, sample in zip(shards, samples, strict=True):
            self._reader.sample(shard, sample)


def webdataset_raw(tars: list[str]) -> None:
    for _ in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False):
        pass


def encoded_samples(folder: Path, num_samples: int) -> list[dict[str, bytes]]:
    reader = Reader(LocalFolder(folder), manifest.read(folder).split("train"), live_bytes=LIVE_BYTES)
    apart = NUM_SAMPLES // num_samples
    places = [divmod(number * apart, SAMPLES_PER_SHARD) for number in range(num_samples)]
    return [{name: bytes(data) for name, data in reader.sample(*place)[1].items()} for place in places]


def codecs_alone(encoded: list[dict[str, bytes]]) -> None:
    """Bring what is in memory already to its shape, on as many threads as the loader has, and keep nothing."""
    fit = config().inputs["image"]
    assert isinstance(fit, ImageConfig)

    def run(samples: list[dict[str, bytes]]) -> None:
        for members in samples:
            fit_image(members["jpg"], fit, None)
            audio(members["wav"] if "wav" in members else members["flac"])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, [encoded[::2], encoded[1::2]]))


def decoded(loader: Loader, epoch: int) -> None:
    steps = loader.order.steps_per_epoch
    for step in range(epoch * steps, (epoch + 1) * steps):
        loader(step)


def webdataset_sample(members: dict[str, bytes]) -> tuple[torch.Tensor, torch.Tensor, int]:
    with Image.open(io.BytesIO(members["jpg"])) as file:
        pixels = np.array(file.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.NEAREST))
    audio, _ = soundfile.read(io.BytesIO(members["wav"] if "wav" in members else members["flac"]), dtype="float32")
    return torch.from_numpy(pixels), torch.from_numpy(audio), int(members["cls"])


def webdataset_decoded(tars: list[str], collate: Callable[[list[object]], object] | None) -> None:
    dataset = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).shuffle(1000).map(webdataset_sample)
    for _ in DataLoader(dataset, batch_size=BATCH, num_workers=2, collate_fn=collate):
        pass


def resume(folder: Path) -> dict[str, float]:
    """Open in the middle of the fourth epoch; return the seconds to the first batch and the extents read for it."""
    start = time.perf_counter()
    with open_loader(folder) as loader:
        loader(3 * loader.order.steps_per_epoch + loader.order.steps_per_epoch // 2)
        reader = loader.assembler.sources[0].reader
        assert isinstance(reader, Reader)
        return {
            "resume_seconds": time.perf_counter() - start,
            "resume_extents_per_lane": reader.extents.num_read / 8,
        }


def memory_growth(folder: Path, epochs: int) -> float:
    """Return by how much resident memory grew from the second epoch to the last, in a process of its own."""
    pages: list[int] = in_own_process(f"resident_pages({str(folder)!r}, {epochs})")
    return max(pages[2:]) / pages[1] - 1


def in_own_process(call: str) -> Any:  # noqa: ANN401  # what the call returns, from JSON
    """Return what a call of this file's returns in a process that has done nothing else."""
    program = f"import json, loader; print(json.dumps(loader.{call}))"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def resident_pages(folder: str, epochs: int) -> list[int]:
    """Return the pages in memory after each epoch."""
    pages = []
    with open_loader(Path(folder)) as loader:
        steps = loader.order.steps_per_epoch
        for epoch in range(epochs):
            for step in range(epoch * steps, (epoch + 1) * steps):
                loader(step)
            pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    return pages


def make_shards(folder: Path) -> None:
    print(f"writing {NUM_SAMPLES} samples to {folder}", file=sys.stderr)
    (folder / "train").mkdir(exist_ok=True)
    with ProcessPoolExecutor(2) as processes:
        list(processes.map(write_shard, [folder / f"train/{number:06d}.tar" for number in range(NUM_SHARDS)]))
    adoption.index(folder)


def write_shard(path: Path) -> None:
    rng = np.random.default_rng(int(path.stem))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in range(SAMPLES_PER_SHARD):
            for extension, content in encode(rng):
                header = tarfile.TarInfo(f"{path.stem}_{sample:04d}.{extension}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def encode(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a sample: a smooth picture with some noise, a chord with some noise, a label."""
    side = int(rng.integers(64, 225))
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(coarse, np.float32) + rng.normal(0, 6, (side, side, 3)), 0, 255)
    image = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(image, "JPEG", quality=85)
    yield "jpg", image.getvalue()
    seconds = np.arange(RATE) / RATE
    chord = sum(np.sin(2 * np.pi * frequency * seconds) for frequency in rng.uniform(100, 2000, 3))
    audio, form = io.BytesIO(), "WAV" if rng.random() < 0.5 else "FLAC"
    soundfile.write(audio, 0.2 * chord + rng.normal(0, 0.01, RATE), RATE, format=form, subtype="PCM_16")
    yield form.lower(), audio.getvalue()
    yield "cls", str(rng.integers(10)).encode()


if __name__ == "__main__":
    main()
