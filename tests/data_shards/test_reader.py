"""The reader gives what was packed, an extent at a time, and nothing that was changed since."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.building import adoption
from data_shards.format import extents
from data_shards.format.extents import Extent, ExtentCache
from data_shards.format.manifest import Manifest
from data_shards.loading.reader import Reader
from data_shards.storage.local_folder import LocalFolder

TextShards = Callable[..., Manifest]


def reader_of(folder: Path, manifest: Manifest) -> Reader:
    return Reader(LocalFolder(folder), manifest.split("train"), live_bytes=1 << 20)


def test_samples_are_what_was_packed(tmp_path: Path, text_shards: TextShards) -> None:
    reader = reader_of(tmp_path, text_shards(tmp_path, [3, 5]))
    for shard, sample in [(1, 4), (0, 0), (1, 0), (0, 2)]:
        key, members = reader.sample(shard, sample)
        assert key == f"tr{shard:03d}_{sample:04d}"
        assert {name: bytes(content) for name, content in members.items()} == {
            "txt": key.encode(),
            "cls": str((shard + sample) % 3).encode(),
        }
    assert reader.extents.num_read == 2


def test_a_missing_index_is_made_anew(tmp_path: Path, text_shards: TextShards) -> None:
    manifest = text_shards(tmp_path, [3])
    (tmp_path / "train/000000.idx").unlink()
    assert reader_of(tmp_path, manifest).sample(0, 1)[0] == "tr000_0001"


def test_another_shards_index_is_refused(tmp_path: Path, text_shards: TextShards) -> None:
    manifest = text_shards(tmp_path, [3, 4])
    (tmp_path / "train/000000.idx").write_bytes((tmp_path / "train/000001.idx").read_bytes())
    with pytest.raises(ValueError, match=r"000000\.idx: is not the index .* delete it"):
        reader_of(tmp_path, manifest).sample(0, 1)


def test_an_index_of_as_many_samples_that_is_another_is_refused(tmp_path: Path, text_shards: TextShards) -> None:
    manifest = text_shards(tmp_path, [3, 3])
    (tmp_path / "train/000000.idx").write_bytes((tmp_path / "train/000001.idx").read_bytes())
    with pytest.raises(ValueError, match=r"000000\.idx: is not the index that the manifest names; delete it"):
        reader_of(tmp_path, manifest).sample(0, 1)


def test_an_index_of_other_samples_than_are_listed_is_refused(tmp_path: Path, text_shards: TextShards) -> None:
    entry = replace(text_shards(tmp_path, [3]).split("train").shards[0], num_samples=4)
    with pytest.raises(ValueError, match=r"\(it has 3 samples, the manifest says 4\)"):
        LocalFolder(tmp_path).index(entry)


def test_a_shard_that_is_cut_while_a_run_reads_it_is_told(tmp_path: Path, text_shards: TextShards) -> None:
    reader = reader_of(tmp_path, text_shards(tmp_path, [3]))
    reader.key(0, 0)
    path = tmp_path / "train/000000.tar"
    path.write_bytes(path.read_bytes()[:1500])
    told = r"000000\.tar: is shorter than its index says \(it ends at byte 1500, a sample at byte \d+\); copy it again"
    with pytest.raises(ValueError, match=told):
        reader.sample(0, 2)


def test_a_flipped_byte_is_found_in_its_sample_alone(tmp_path: Path, text_shards: TextShards) -> None:
    manifest = text_shards(tmp_path, [3])
    path = tmp_path / "train/000000.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"tr000_0001", content.index(b"tr000_0001") + 512)] ^= 1
    path.write_bytes(content)
    reader = reader_of(tmp_path, manifest)
    assert reader.sample(0, 0)[0] == "tr000_0000"
    with pytest.raises(ValueError, match=r"bytes \d+ to \d+ are not what was written; copy the shard again"):
        reader.sample(0, 1)


def test_missing_and_cut_shards_are_named_before_the_first_step(tmp_path: Path, text_shards: TextShards) -> None:
    split = text_shards(tmp_path, [3, 3]).split("train")
    LocalFolder(tmp_path).check(split)
    path = tmp_path / "train/000001.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000001\.tar: has 10239 bytes, the manifest says 10240: .* copy it again"):
        LocalFolder(tmp_path).check(split)
    path.unlink()
    with pytest.raises(ValueError, match=r"000001\.tar: no such file, but .*manifest\.json lists it; copy"):
        LocalFolder(tmp_path).check(split)


def test_a_linked_folder_and_a_linked_index_outside_are_refused_and_links_within_are_read(
    tmp_path: Path, text_shards: TextShards
) -> None:
    contents = text_shards(tmp_path / "in", [3])
    folder, entry = LocalFolder(tmp_path / "in"), contents.split("train").shards[0]
    (tmp_path / "in" / "train").rename(tmp_path / "in" / "there")
    (tmp_path / "in" / "train").symlink_to("there")
    folder.check(contents.split("train"))
    assert folder.index(entry).num_samples == 3
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    LocalFolder(tmp_path / "linked").check(contents.split("train"))
    index = tmp_path / "in" / "there" / "000000.idx"
    index.rename(tmp_path / "out.idx")
    index.symlink_to(tmp_path / "out.idx")
    with pytest.raises(ValueError, match=r"000000\.idx: leads out of the folder"):
        folder.index(entry)
    (tmp_path / "in" / "there").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "train").unlink()
    (tmp_path / "in" / "train").symlink_to(tmp_path / "elsewhere")
    for read in (lambda: folder.check(contents.split("train")), lambda: folder.open(entry)):
        with pytest.raises(ValueError, match=r"train(/000000\.tar)?: leads out of the folder"):
            read()


def test_a_shard_that_is_read_again_costs_its_opening_and_no_look_at_each_part_of_its_path(
    tmp_path: Path, text_shards: TextShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = text_shards(tmp_path, [3, 3])
    folder, (first, second) = LocalFolder(tmp_path), contents.split("train").shards
    folder.open(first).close()
    looked: list[str] = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: looked.append(str(path)) or lstat(path))
    for entry in (first, second):
        folder.open(entry).close()
        folder.index(entry)
    assert looked == []


def test_where_the_system_does_not_tell_where_a_file_lies_its_path_is_resolved(
    tmp_path: Path, text_shards: TextShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = text_shards(tmp_path / "in", [3]).split("train")
    folder, readlink = LocalFolder(tmp_path / "in"), os.readlink

    def untold(path: str) -> str:
        if str(path).startswith("/proc/self/fd/"):
            raise FileNotFoundError(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", untold)
    folder.open(split.shards[0]).close()
    path = tmp_path / "in/train/000000.tar"
    path.rename(tmp_path / "out.tar")
    path.symlink_to(tmp_path / "out.tar")
    with pytest.raises(ValueError, match=r"000000\.tar: leads out of the folder"):
        folder.open(split.shards[0])


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, text_shards: TextShards) -> None:
    split = text_shards(tmp_path / "in", [3]).split("train")
    path = tmp_path / "in/train/000000.tar"
    path.rename(tmp_path / "out.tar")
    path.symlink_to(tmp_path / "out.tar")
    with pytest.raises(ValueError, match=r"000000\.tar: leads out of the folder"):
        LocalFolder(tmp_path / "in").check(split)


def test_extents_begin_and_end_with_samples() -> None:
    ends = np.cumsum([10] * 26)
    spans = np.stack([ends - 9, ends], axis=1)
    assert extents.cuts(spans, 100).tolist() == [0, 10, 20, 26]
    assert extents.cuts(spans[:22], 100).tolist() == [0, 10, 22]  # a rest of less than half goes with the one before
    assert extents.cuts(spans, 1000).tolist() == [0, 26]
    assert extents.cuts(spans, 5).tolist() == list(range(27))


def test_a_large_shard_is_read_in_extents(tmp_path: Path, write_tar: Callable[..., Path]) -> None:
    content = bytes(3 << 20)
    write_tar(tmp_path / "a.tar", [(f"{n}.txt", content) for n in range(8)])
    manifest = adoption.index(tmp_path)
    reader = Reader(LocalFolder(tmp_path), manifest.split("train"), live_bytes=16 << 20)
    for sample, num_read in [(0, 1), (2, 1), (3, 2), (7, 3), (6, 3), (1, 4)]:
        assert reader.sample(0, sample)[1]["txt"] == content
        assert reader.extents.num_read == num_read
        assert reader.extents.held_bytes <= 16 << 20


def test_threads_that_want_the_same_extents_read_different_ones(
    tmp_path: Path, text_shards: TextShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, both_read = reader_of(tmp_path, text_shards(tmp_path, [3, 3])), threading.Barrier(2)

    def read(*words: Any) -> Extent:  # noqa: ANN401
        both_read.wait(10)
        return original(*words)

    original = extents.read
    monkeypatch.setattr(extents, "read", read)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(reader.read_ahead, [0, 1, 0], [0, 1, 2]) for _ in range(2)]:
            done.result()
    assert reader.extents.num_read == 2


def test_little_is_read_ahead_of_what_is_held(tmp_path: Path, write_tar: Callable[..., Path]) -> None:
    write_tar(tmp_path / "a.tar", [(f"{n}.txt", bytes(3 << 20)) for n in range(24)])
    manifest = adoption.index(tmp_path)
    reader = Reader(LocalFolder(tmp_path), manifest.split("train"), live_bytes=64 << 20)
    reader.read_ahead([0] * 24, list(range(24)))
    assert reader.extents.num_read == 1


def extent(num_bytes: int = 10) -> Extent:
    return Extent(0, memoryview(bytes(num_bytes)), 0)


def test_the_extent_cache_drops_the_oldest() -> None:
    cache = ExtentCache(live_bytes=30)
    for number in [0, 1, 2, 0, 3, 0]:
        cache.fetch((0, number), extent)
    assert list(cache.held) == [(0, 2), (0, 3), (0, 0)]
    assert (cache.num_read, cache.held_bytes) == (5, 30)


def test_threads_that_want_one_extent_read_it_once() -> None:
    cache, both_there = ExtentCache(100), threading.Barrier(2)

    def touch() -> Extent:
        both_there.wait()
        return cache.fetch((0, 0), extent)

    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(touch) for _ in range(2))
    assert first.result() is second.result()
    assert cache.num_read == 1


def test_a_thread_that_waits_for_a_read_that_fails_gets_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, waits = ExtentCache(100), threading.Event()
    result = Future.result

    def patient(future: Future[Extent], timeout: float | None = None) -> Extent:
        waits.set()
        return result(future, timeout or 10)

    def fails() -> Extent:
        # Only when the other one waits for what is read here.
        other.append(threads.submit(cache.fetch, (0, 0), extent))
        waits.wait(10)
        raise OSError("input/output error")

    monkeypatch.setattr(Future, "result", patient)
    other: list[Future[Extent]] = []
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(OSError, match="input/output error"):
            cache.fetch((0, 0), fails)
        assert isinstance(other[0].exception(10), OSError)


def test_a_cache_that_was_cleared_holds_as_much_as_before() -> None:
    cache = ExtentCache(live_bytes=30)
    for _ in range(2):
        for number in range(3):
            cache.fetch((0, number), extent)
        assert (len(cache.held), cache.held_bytes) == (3, 30)
        cache.clear()
        assert (len(cache.held), cache.held_bytes) == (0, 0)


def test_only_so_many_indexes_are_held(
    tmp_path: Path, text_shards: TextShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_shards.loading.reader._NUM_TABLES", 2)
    reader = reader_of(tmp_path, text_shards(tmp_path, [2, 2, 2, 2]))
    for shard in (0, 1, 2, 3, 0):
        assert reader.key(shard, 1) == f"tr{shard:03d}_0001"
    assert list(reader._tables) == [3, 0]


def test_a_failed_read_is_tried_again_by_the_next_touch() -> None:
    cache = ExtentCache(100)

    def fails() -> Extent:
        raise OSError("input/output error")

    with pytest.raises(OSError, match="input/output error"):
        cache.fetch((0, 0), fails)
    assert len(cache.fetch((0, 0), extent).content) == 10


def test_a_shard_that_vanishes_is_named(tmp_path: Path, text_shards: TextShards) -> None:
    reader = reader_of(tmp_path, text_shards(tmp_path, [3]))
    (tmp_path / "train/000000.tar").unlink()
    with pytest.raises(ValueError, match=r"000000\.tar: cannot be read \(No such file or directory\)"):
        reader.sample(0, 0)
