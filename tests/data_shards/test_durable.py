"""What is written survives a power cut: bytes before the name, the name before anything that rests on it."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from data_shards.building.shard_writer import written_beside
from data_shards.files import atomic
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.format.manifest import write as write_manifest

Calls = list[tuple[str, str]]


def hidden(path: Path) -> str:
    return str(path.with_name(f".{path.name}.{os.getpid()}"))


def test_bytes_are_synced_before_the_name_and_the_folder_after_it(tmp_path: Path, disk_calls: Calls) -> None:
    path = tmp_path / "record.json"
    atomic.write(path, "new")
    assert disk_calls == [("sync", hidden(path)), ("name", str(path)), ("sync", str(tmp_path))]
    assert path.read_text() == "new"
    disk_calls.clear()
    atomic.write(path, b"heartbeat", survives_power_cut=False)
    assert disk_calls == [("name", str(path))]


def test_a_published_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, disk_calls: Calls) -> None:
    beside, folder = tmp_path / ".beside", tmp_path / "folder"
    (beside / "inner").mkdir(parents=True)
    (beside / "inner" / "a").write_text("a")
    (beside / "b").write_text("b")
    atomic.publish(beside, folder)
    named = disk_calls.index(("name", str(folder)))
    assert {path for _, path in disk_calls[:named]} == {
        str(beside),
        *(str(beside / name) for name in ("inner", "inner/a", "b")),
    }
    assert disk_calls[named + 1 :] == [("sync", str(tmp_path))]
    assert (folder / "inner" / "a").read_text() == "a"


def test_what_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    atomic.write(path, "old")
    with suppress(ValueError), atomic.written_beside(path) as file:
        file.write(b"half")
        raise ValueError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "no folder" / "record.json", "new")


def test_shards_and_their_manifest_are_synced_with_their_folders(tmp_path: Path, disk_calls: Calls) -> None:
    tar, manifest = tmp_path / "train" / "000000.tar", tmp_path / "manifest.json"
    with written_beside(tar) as file:
        file.write(b"x")
    entry = ShardEntry("train/000000.tar", 1, 1, "0" * 64, "0" * 64, {})
    write_manifest(Manifest({"train": Split(Shards.of([entry]), ())}, ()), tmp_path)
    assert disk_calls == [
        *(("sync", hidden(tar)), ("name", str(tar)), ("sync", str(tar.parent))),
        *(("sync", hidden(manifest)), ("name", str(manifest)), ("sync", str(tmp_path))),
    ]


def test_one_place_renames_and_syncs() -> None:
    """Whoever writes beside a name uses `durable`; the exceptions are named, each with its reason."""
    exceptions = {
        "data_shards/files/atomic.py",
        "data_shards/loading/quarantine.py",  # appends in place, under a lock
        "data_shards/sources/text.py",  # scratch
        "launch/chaos/disk.py",  # moves a folder of a test
        "launch/doctor/rank.py",  # measures the disk
        "trainer/checkpoint/store.py",  # hides what it deletes
        "trainer/health/run_lock.py",  # writes into the locked file itself
        "trainer/checkpoint/tensor_file.py",  # hashes and syncs in one pass
    }
    top = Path(__file__).parents[2]
    words = ("os.fsync(", "os.replace(", "os.rename(", "beside.replace(", "beside.rename(", "hidden.replace(")
    words += (".rename(hidden", "part.replace(", ").replace(scratch", "beside.rename(folder")
    found = {
        str(path.relative_to(top))
        for package in ("data_shards", "trainer", "model", "launch", "configs", "perceiver_trainer")
        for path in (top / package).rglob("*.py")
        if any(word in path.read_text() for word in words)
    }
    assert found <= exceptions


def test_whatever_is_there_is_removed_and_what_a_link_names_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (kept / "a").write_text("a")
    for name in ("file", "folder", "link", "nothing"):
        path = tmp_path / name
        if name == "file":
            path.write_text("x")
        elif name == "folder":
            (path / "inner").mkdir(parents=True)
        elif name == "link":
            path.symlink_to(kept)
        atomic.remove(path)
        assert not path.exists()
        assert not path.is_symlink()
    assert (kept / "a").read_text() == "a"


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.ENOENT, False)]
)
def test_what_only_the_owner_of_the_disk_can_mend_is_a_sentence(number: int, told: bool) -> None:
    sentence = atomic.of_disk(OSError(number, "cause", "/some/file"))
    assert bool(sentence) == told
    if told:
        assert sentence.startswith("/some/file: cannot be written (cause); free space")
        assert atomic.of_disk(OSError(number, "cause")).startswith("cannot be written (cause)")


@pytest.mark.parametrize("name", ["folder", "link", "file/below", "n" * 300, "new folder"])
def test_what_stands_in_the_way_of_a_file_is_a_sentence_with_the_name_that_a_user_knows(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("link")
    (tmp_path / "new folder").touch()
    works: dict[str, Callable[[], object]] = {
        "new folder": lambda: (tmp_path / name).mkdir(exist_ok=True),
        "link": (tmp_path / name).read_bytes,
    }
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        works.get(name, lambda: atomic.write(tmp_path / name, "x"))()
    sentence = atomic.of_disk(caught.value)
    assert str(tmp_path / name.partition("/")[0]) in sentence.replace("/.", "/")
    assert sentence.endswith("move it away or correct its permissions, then start again")
    assert not atomic.of_disk(PermissionError(errno.EPERM, "of a process, not of a file"))


@pytest.mark.parametrize("how", ["read", "append", "mkdir", "below"])
def test_a_link_to_nothing_is_a_sentence_with_the_link_and_what_it_names(tmp_path: Path, how: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone" / "away")
    works: dict[str, Callable[[], object]] = {
        "read": link.read_bytes,
        "append": lambda: link.open("ab"),
        "mkdir": lambda: link.mkdir(exist_ok=True),
        "below": lambda: (link / "file").write_text("x"),
    }
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        works[how]()
    assert atomic.of_disk(caught.value).startswith(f"{link}: is a link to {tmp_path}/gone/away, which is not there;")


def refusing(number: int) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


def test_a_file_system_without_a_sync_of_folders_is_enough_and_one_of_files_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    for number in (errno.EINVAL, errno.ENOTSUP):
        monkeypatch.setattr(os, "fsync", refusing(number))
        atomic.sync(tmp_path)
        with pytest.raises(OSError, match=os.strerror(number)):
            atomic.sync(file)
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        atomic.sync(tmp_path)


def test_a_sync_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(9):
        atomic.sync(tmp_path)
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    for _ in range(9):
        with suppress(OSError):
            atomic.sync(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
