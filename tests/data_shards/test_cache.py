"""The cache deletes only what it fetched, serves only what is whole, and is shared by processes."""

import hashlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from data_shards.files import atomic
from data_shards.storage.cache import ShardCache


def content_of(number: int) -> bytes:
    return bytes([number]) * 1000


def hash_of(number: int) -> str:
    return hashlib.sha256(content_of(number)).hexdigest()


def fetching(number: int, log: Path | None = None) -> Callable[[Path], None]:
    def fetch(path: Path) -> None:
        path.write_bytes(content_of(number))
        if log:
            with log.open("a") as file:
                file.write(f"{number}\n")

    return fetch


def read(cache: ShardCache, number: int, log: Path | None = None) -> bytes:
    with cache.open(hash_of(number), 1000, fetching(number, log)) as file:
        return file.read()


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "perceiver-shards").iterdir() if not path.name.endswith(".lock")}


def test_what_was_used_longest_ago_is_deleted_first(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path, 3000), tmp_path / "log"
    for number in [0, 1, 2, 0, 3, 0, 1]:
        assert read(cache, number, log) == content_of(number)
    assert log.read_text().split() == ["0", "1", "2", "3", "1"]
    assert names(tmp_path) == {hash_of(number) for number in (0, 1, 3)}


def test_only_what_was_fetched_is_deleted(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    own = [tmp_path / "000000.tar", tmp_path / "perceiver-shards/mine.tar", tmp_path / ("a" * 64)]
    for path in own:
        path.write_bytes(bytes(5000))
    for number in range(4):
        read(cache, number)
    assert all(path.read_bytes() == bytes(5000) for path in own)
    assert names(tmp_path) == {"mine.tar", hash_of(3)}


def test_an_open_file_outlives_its_deletion(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    with cache.open(hash_of(0), 1000, fetching(0)) as file:
        read(cache, 1)
        assert names(tmp_path) == {hash_of(1)}
        assert file.read() == content_of(0)


def test_a_file_that_another_process_deletes_at_once_is_still_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = atomic.rename

    def renamed_and_deleted(path: Path, name: Path) -> None:
        rename(path, name)
        name.unlink()

    monkeypatch.setattr(atomic, "rename", renamed_and_deleted)
    assert read(ShardCache(tmp_path, 3000), 7) == content_of(7)
    assert not names(tmp_path)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    sync, rename = atomic.sync, atomic.rename
    monkeypatch.setattr(atomic, "sync", lambda path: done.append(("sync", path.suffix)) or sync(path))
    monkeypatch.setattr(atomic, "rename", lambda path, name: done.append(("rename", path.suffix)) or rename(path, name))
    read(ShardCache(tmp_path, 3000), 7)
    assert done[:2] == [("sync", ".part"), ("rename", ".part")]


def test_a_failed_or_killed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 5000)

    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("cut short")

    with pytest.raises(ValueError, match="cut short"):
        cache.open(hash_of(0), 1000, fails)
    assert names(tmp_path) == set()
    (tmp_path / f"perceiver-shards/{hash_of(0)}.123.456.part").write_bytes(b"of a killed process")
    assert read(cache, 0) == content_of(0)
    assert names(tmp_path) == {hash_of(0)}


def test_threads_fetch_a_file_once(tmp_path: Path) -> None:
    cache, log = ShardCache(tmp_path, 50_000), tmp_path / "log"
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: read(cache, number % 3, log), range(48)))
    assert found == [content_of(number % 3) for number in range(48)]
    assert sorted(log.read_text().split()) == ["0", "1", "2"]


def read_many(folder: Path, log: Path) -> list[bytes]:
    cache = ShardCache(folder, 2500)
    return [read(cache, number % 5, log) for number in range(100)]


@pytest.mark.slow
def test_processes_share_a_cache_that_is_too_small_for_them(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(3, mp_context=context) as processes:
        found = list(processes.map(read_many, [tmp_path] * 3, [tmp_path / "log"] * 3))
    assert found == [[content_of(number % 5) for number in range(100)]] * 3
    assert len(names(tmp_path)) <= 5
