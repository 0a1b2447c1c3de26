"""The shards of a run are looked at once, and by one rank a host; the others are told."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit import listening
from threads import ThreadWorld, on_ranks

from configs.run import RunConfig, load
from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.loading.shard_folders import Places
from launch.run import loaders
from launch.run.loaders import identity, look, open_eval_split, places_of_all, train_loader

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
KINDS = {"cls/mp4/npy/png/txt/wav": 64}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Counter[tuple[int, str]]]:
    """How often each thread opens a file of the data folder or asks for its size."""
    asked: Counter[tuple[int, str]] = Counter()
    data, lstat = f"{tmp_path}/shards/", os.lstat

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(data):
            asked[threading.get_ident(), f"open {Path(str(arguments[0])).name}"] += 1

    def noted(path: str) -> os.stat_result:
        if str(path).startswith(data):
            asked[threading.get_ident(), "lstat"] += 1
        return lstat(path)

    monkeypatch.setattr(os, "lstat", noted)
    with listening(note):
        yield asked


def run(folder: Path, num_shards: int) -> RunConfig:
    """Return a run whose folder of shards is there as far as a manifest and sizes tell."""
    splits = {}
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        names = [f"{split}/{number:06d}.tar" for number in range(num_shards)]
        for name in names:
            (folder / name).write_bytes(b"x" * 100)
        entries = [ShardEntry(name, 64, 100, "0" * 64, "0" * 64, KINDS) for name in names]
        splits[split] = Split(Shards.of(entries), (6,) * 10)
    manifest.write(Manifest(splits, tuple("0123456789")), folder)
    return load(DIGITS, [f"data.shards={folder}"])


def start(config: RunConfig, world: ThreadWorld, list_path: Path) -> int:
    """Open what a start opens on this rank; return which thread it was."""
    places = places_of_all(config, world, Places(config.data), lambda places: look(config, places))
    train_loader(config, list_path, world, places).close()
    open_eval_split(config, "test", list_path, world, places).loader.close()
    identity(config, places)
    return threading.get_ident()


@pytest.mark.parametrize("num_shards", [4, 40])
def test_a_rank_that_is_not_the_first_asks_the_data_folder_for_nothing_and_the_manifest_is_read_once(
    tmp_path: Path, calls: Counter[tuple[int, str]], num_shards: int
) -> None:
    config = run(tmp_path / "shards", num_shards)
    first, *others = on_ranks(4, lambda world: start(config, world, tmp_path / "list"))
    assert calls[first, "open manifest.json"] == 1
    assert calls[first, "lstat"] >= 2 * num_shards, "somebody has to look"
    assert {call for call in calls if call[0] in others} == set()


def test_one_rank_of_every_other_host_looks_too(
    tmp_path: Path, calls: Counter[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run(tmp_path / "shards", 10)
    monkeypatch.setattr(loaders, "is_first_of_host", lambda world: world.rank in (0, 2))
    threads = on_ranks(4, lambda world: start(config, world, tmp_path / "list"))
    assert [calls[thread, "open manifest.json"] for thread in threads] == [1, 0, 1, 0]
    assert [calls[thread, "lstat"] >= 20 for thread in threads] == [True, False, True, False]


def test_a_hosts_own_copy_that_lacks_a_shard_or_is_another_is_refused_by_all(tmp_path: Path) -> None:
    config = run(tmp_path / "shards", 3)
    places = Places(config.data)
    look(config, places)
    told = Places(config.data, places.found)
    told.check_here()
    shard = tmp_path / "shards/test/000001.tar"
    shard.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"test/000001\.tar: has 5 bytes, the manifest says 100"):
        told.check_here()
    shard.unlink()
    with pytest.raises(ValueError, match=r"test/000001\.tar: no such file"):
        told.check_here()
    there = manifest.read(tmp_path / "shards")
    train = there.splits["train"]
    manifest.write(
        Manifest({"train": train, "test": Split(Shards.of(train.shards[:1]), train.label_counts)}, there.label_names),
        tmp_path / "shards",
    )
    with pytest.raises(ValueError, match=r"manifest\.json: this host has other shards there than rank 0's; copy"):
        told.check_here()


def test_what_a_host_finds_ends_all_ranks_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run(tmp_path / "shards", 3)
    monkeypatch.setattr(loaders, "is_first_of_host", lambda world: world.rank in (0, 2))
    looked = Places(config.data)
    look(config, looked)
    (tmp_path / "shards/train/000002.tar").unlink()

    def rank(world: ThreadWorld) -> str:
        # Rank 0 looked before the shard went; the host of rank 2 never had it.
        with pytest.raises((ValueError, SystemExit)) as ended:
            places_of_all(config, world, looked, lambda _: None)
        return str(ended.value)

    monkeypatch.setattr(ThreadWorld, "settle", lambda _: None)
    sentence, *others = on_ranks(3, rank)
    assert "train/000002.tar: no such file" in sentence
    assert others == ["2", "2"]
