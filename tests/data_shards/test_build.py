import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import File, Literal, Row
from data_shards.building.shard_assignment import plan
from data_shards.format import manifest
from data_shards.format.tar_index import TarIndex
from data_shards.format.tar_walk import MAX_MEMBER_BYTES

NAMES = ("a", "b")


def texts(number: int, split: str = "train") -> list[Row]:
    return [Row(line, (Literal(b"x" * (1 + line % 7), "txt"),), label=line % 2, split=split) for line in range(number)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_says_what_is_in_the_shards(tmp_path: Path) -> None:
    built = build_table([*texts(25)[5:], *texts(5, "test")], tmp_path, label_names=NAMES, samples_per_shard=8)
    assert manifest.read(tmp_path) == built
    assert {name: split.num_samples for name, split in built.splits.items()} == {"train": 20, "test": 5}
    assert built.split("train").label_counts == (10, 10)
    assert sorted(shard.num_samples for shard in built.split("train").shards) == [6, 7, 7]
    for split in built.splits.values():
        for shard in split.shards:
            index = TarIndex.from_tar(tmp_path / shard.name)
            assert index.num_samples == shard.num_samples == sum(shard.kinds.values())
            assert index.to_bytes() == (tmp_path / shard.name).with_suffix(".idx").read_bytes()


# webdataset 1.0.2 leaves every tar that it read open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_and_gnu_tar_read_every_shard(tmp_path: Path) -> None:
    rows = [Row(3, (Literal(b"three", "txt"),), weight=0.5), *texts(3), Row(4, (Literal(b"x", "txt"),), labels=(0, 1))]
    built = build_table(rows, tmp_path, label_names=NAMES, samples_per_shard=2)
    seen = {}
    for shard in built.split("train").shards:
        path = tmp_path / shard.name
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
            seen[sample["__key__"]] = {name: value for name, value in sample.items() if not name.startswith("__")}
        listed = subprocess.run(["tar", "--list", "-f", path], check=True, capture_output=True, text=True)
        with tarfile.open(path) as tar:
            assert listed.stdout.split() == tar.getnames()
        assert listed.stderr == ""
    assert seen["00000002"] == {"txt": b"xxx", "cls": b"0"}
    assert seen["00000003"] == {"txt": b"three", "json": b'{"weight": 0.5}'}
    assert seen["00000004"] == {"txt": b"x", "json": b'{"labels": [0, 1]}'}
    assert len(seen) == 5


def test_a_seed_gives_the_same_bytes_with_any_number_of_jobs_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed, num_jobs in [("one", 0, 1), ("again", 0, 1), ("other", 1, 1)]:
        build_table(texts(40), tmp_path / name, label_names=NAMES, seed=seed, samples_per_shard=10, num_jobs=num_jobs)
    assert files(tmp_path / "one") == files(tmp_path / "again")
    assert files(tmp_path / "one")["train/000000.tar"] != files(tmp_path / "other")["train/000000.tar"]


@pytest.mark.slow
def test_several_processes_write_the_bytes_of_one(tmp_path: Path) -> None:
    for num_jobs in (1, 2):
        build_table(texts(40), tmp_path / str(num_jobs), label_names=NAMES, samples_per_shard=10, num_jobs=num_jobs)
    assert files(tmp_path / "1") == files(tmp_path / "2")


SCRIPT = """
from pathlib import Path
from data_shards.building.builder import build_table
from data_shards.building.raw_sample import File, Row
from data_shards.modalities.kinds.text import TextConfig


def held(*_):
    # Spawned processes run this script too: opening the pipe holds each until the test has written.
    Path({pipe!r}).open("rb").read()


TextConfig.decoded_shape = staticmethod(held)

if __name__ == "__main__":
    rows = [Row(line, (File({text!r}),)) for line in range(4)]
    build_table(rows, Path({out!r}), samples_per_shard=2, num_jobs=2)
"""


@pytest.mark.slow
def test_the_processes_of_a_killed_build_end_with_it(tmp_path: Path) -> None:
    pipe, text = tmp_path / "pipe", tmp_path / "a.txt"
    os.mkfifo(pipe)
    text.write_text("a text")
    script = SCRIPT.format(pipe=str(pipe), text=str(text), out=str(tmp_path / "out"))
    (tmp_path / "script.py").write_text(script)
    with subprocess.Popen([sys.executable, tmp_path / "script.py"]) as build, pipe.open("wb"):
        wait_until(lambda: len(list((tmp_path / "out").glob("train/.*.tar.*"))) == 2)
        listed = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text()
        children = [Path("/proc") / child for child in listed.split()]
        assert len(children) >= 2
        build.kill()
        wait_until(lambda: not any((child / "exe").exists() for child in children))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@given(
    sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=60),
    samples_per_shard=st.integers(1, 20),
    seed=st.integers(0, 2**32),
)
def test_every_row_is_dealt_once_and_shards_are_balanced(sizes: list[int], samples_per_shard: int, seed: int) -> None:
    rows = [Row(line, (Literal(bytes(size), "txt"),)) for line, size in enumerate(sizes)]
    shards = plan(rows, seed=seed, samples_per_shard=samples_per_shard).shards
    assert Counter(row.line for shard in shards for row in shard.rows) == Counter(range(len(rows)))
    counts = [len(shard.rows) for shard in shards]
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= samples_per_shard
    # Each round deals neighbours in size, so two shards differ by the telescoped sum of the gaps: the largest size.
    shard_bytes = [sum(content.num_bytes for row in shard.rows for content in row.members) for shard in shards]
    assert max(shard_bytes) - min(shard_bytes) <= 2 * max(sizes)


def test_samples_are_shuffled_across_shards() -> None:
    shards = plan(texts(400), seed=0, samples_per_shard=100).shards
    for shard in shards:
        lines = [row.line for row in shard.rows]
        assert lines != sorted(lines)
        # 100 of 400 lines drawn without replacement: their mean is 199.5 with a deviation of 10.
        assert abs(np.mean(lines) - 199.5) < 50


@dataclass(frozen=True)
class Explosive:
    """Content that ends the build when it is read while its fuse is there: by Ctrl-C, or by kill -9."""

    fuse: str
    deadly: bool = False
    extension: str = "txt"
    origin: str = "explosive"
    num_bytes: int = 1

    def read(self) -> bytes:
        if Path(self.fuse).exists():
            if self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return b"x"


def explosives(fuse: Path, *, deadly: bool = False) -> list[Row]:
    """Every second row is one, so that a build ends in the middle of a shard."""
    return [
        *(Row(line, (Literal(b"x", "txt"),), label=0) for line in range(0, 40, 2)),
        *(Row(line, (Explosive(str(fuse), deadly),), label=1) for line in range(1, 40, 2)),
    ]


def build_until_half(rows: list[Row], out: Path, fuse: Path) -> None:
    """Light the fuse when half of the rows are done."""

    def progress(done: int, total: int) -> None:
        if done >= total // 2:
            fuse.touch()

    build_table(rows, out, label_names=NAMES, samples_per_shard=8, progress=progress)


def goes_on_to_the_same_end(rows: list[Row], out: Path, fuse: Path) -> None:
    finished = sorted((out / "train").glob("*.tar"))
    assert len(finished) == 3
    assert list((out / "train").glob(".*.tar.*")), "the build did not end in the middle of a shard"
    assert not (out / "manifest.json").exists()
    before = [path.stat().st_ino for path in finished]
    fuse.unlink()
    build_table(rows, out, label_names=NAMES, samples_per_shard=8)
    assert [path.stat().st_ino for path in finished] == before, "finished shards were written again"
    build_table(rows, out.parent / "clean", label_names=NAMES, samples_per_shard=8)
    assert files(out) == files(out.parent / "clean")


def test_an_interrupted_build_goes_on_where_it_was(tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    rows = explosives(fuse)
    with pytest.raises(KeyboardInterrupt):
        build_until_half(rows, tmp_path / "out", fuse)
    goes_on_to_the_same_end(rows, tmp_path / "out", fuse)


@pytest.mark.parametrize("damage", [b"", b"\x80", b"[]", b"{}", b'{"entry": 1}', b"[" * 10_000])
def test_a_damaged_note_of_a_finished_shard_costs_that_shard_alone(tmp_path: Path, damage: bytes) -> None:
    fuse = tmp_path / "fuse"
    rows = explosives(fuse)
    with pytest.raises(KeyboardInterrupt):
        build_until_half(rows, tmp_path / "out", fuse)
    notes = sorted((tmp_path / "out" / ".build").glob("*.json"))
    notes[0].write_bytes(damage)
    before = [path.stat().st_ino for path in sorted((tmp_path / "out" / "train").glob("*.tar"))]
    fuse.unlink()
    for out in ("out", "clean"):
        build_table(rows, tmp_path / out, label_names=NAMES, samples_per_shard=8)
    assert files(tmp_path / "out") == files(tmp_path / "clean")
    tars = sorted((tmp_path / "out" / "train").glob("*.tar"))
    assert [path.stat().st_ino for path in tars][1 : len(before)] == before[1:]


def test_a_build_killed_while_it_writes_goes_on_where_it_was(tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    rows = explosives(fuse, deadly=True)
    child = os.fork()
    if child == 0:
        try:
            build_until_half(rows, tmp_path / "out", fuse)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    goes_on_to_the_same_end(rows, tmp_path / "out", fuse)


def test_bad_rows_fail_the_build_with_their_lines(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = [*texts(4), Row(7, (File(str(tmp_path / "gone.wav")),)), Row(9, (File(str(broken)),))]
    with pytest.raises(ValueError, match="2 bad samples") as caught:
        build_table(rows, tmp_path / "out", label_names=NAMES, samples_per_shard=10)
    assert f"line 7: {tmp_path}/gone.wav: No such file" in str(caught.value)
    assert f"line 9: {broken}: " in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_as_many_bad_rows_as_allowed_are_left_out_and_no_more(tmp_path: Path) -> None:
    rows = [*texts(4), Row(7, (File("gone.wav"),)), Row(8, (File("gone.png"),))]
    for max_bad in (0, 1):
        with pytest.raises(ValueError, match=f"at most {max_bad} allowed"):
            build_table(rows, tmp_path, label_names=NAMES, max_bad=max_bad)
    told: list[str] = []
    built = build_table(rows, tmp_path, label_names=NAMES, max_bad=2, tell=told.append)
    assert built.split("train").num_samples == 4
    assert told == [
        "left out, 2 bad samples:\n  line 7: gone.wav: No such file or directory"
        "\n  line 8: gone.png: No such file or directory"
    ]


def test_a_file_too_large_for_a_sample_is_a_bad_row_and_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(MAX_MEMBER_BYTES + 1)
    with pytest.raises(ValueError, match=r"line 0: .*huge.txt: 1073741825 bytes; a file of a sample has at most"):
        build_table([Row(0, (File(str(tmp_path / "huge.txt")),))], tmp_path / "out")


def test_a_shard_of_bad_rows_alone_is_left_out(tmp_path: Path) -> None:
    rows = [*texts(4), Row(9, (File("gone.wav"),), split="test"), Row(10, (Literal(b"x", "txt"),), split="other")]
    built = build_table(rows, tmp_path, label_names=NAMES, max_bad=1)
    assert built.split("test").shards[:] == []
    assert not list((tmp_path / "test").glob("*"))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no samples"),
        ([*texts(4), Row(8, (Literal(b"x", "txt"),), label=2)], "line 8: label 2 is out of range; there are 2 classes"),
        ([*texts(4), Row(8, (Literal(b"x", "txt"),), label=-1)], "line 8: label -1 is out of range"),
        (texts(1), "1 of 2 classes have no sample in the split 'train': b"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(tmp_path: Path, rows: list[Row], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_table(rows, tmp_path / "out", label_names=NAMES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", ["label_names", "named_labels"])
def test_two_classes_of_one_name_are_refused(tmp_path: Path, which: str) -> None:
    names: Any = ["crane", "crane"] if which == "label_names" else {"bird": ["crane", "crane"]}
    with pytest.raises(ValueError, match="classes 0 and 1 are both called 'crane'; give one of them another name"):
        build_table(texts(4), tmp_path / "out", **{"label_names": NAMES, which: names})
    assert not (tmp_path / "out").exists()


def test_a_class_that_loses_its_only_samples_is_refused(tmp_path: Path) -> None:
    rows = [*texts(1), Row(5, (File("gone.png"),), label=1)]
    with pytest.raises(ValueError, match="1 of 2 classes have no sample"):
        build_table(rows, tmp_path, label_names=NAMES, max_bad=1)


def test_a_folder_of_another_build_is_left_alone(tmp_path: Path) -> None:
    build_table(texts(10), tmp_path, label_names=NAMES)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="begun from other rows"):
        build_table(texts(10), tmp_path, label_names=NAMES, seed=1)
    assert files(tmp_path) == before


def test_a_changed_file_is_not_mixed_with_what_was_built_before(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("first")
    build_table([Row(0, (File(str(note)),))], tmp_path / "out")
    note.write_text("another length")
    with pytest.raises(ValueError, match="begun from other rows, files"):
        build_table([Row(0, (File(str(note)),))], tmp_path / "out")


def test_shards_of_another_origin_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "precious.tar").write_bytes(b"precious")
    with pytest.raises(ValueError, match="another origin"):
        build_table(texts(10), tmp_path, label_names=NAMES)
    assert files(tmp_path) == {"train/precious.tar": b"precious"}


def test_a_full_disk_is_said_and_what_was_built_is_kept(tmp_path: Path) -> None:
    build = plan(texts(8), seed=0, samples_per_shard=4)
    assert [shard.name for shard in build.shards] == ["train/000000.tar", "train/000001.tar"]
    (tmp_path / "train").mkdir()
    # Writing to /dev/full fails as on a full disk; the second shard is written through it.
    (tmp_path / "train" / f".000001.tar.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"000001.tar: cannot be written \(No space left on device\); free space"):
        build_table(texts(8), tmp_path, label_names=NAMES, samples_per_shard=4)
    assert TarIndex.from_tar(tmp_path / "train" / "000000.tar").num_samples == 4
    assert json.loads((tmp_path / ".build" / "train-000000.json").read_text())["num_rows"] == 4
    built = build_table(texts(8), tmp_path, label_names=NAMES, samples_per_shard=4)
    assert built.split("train").num_samples == 8


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        build_table(texts(8), tmp_path / "file" / "out", label_names=NAMES)


def test_two_builds_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    rows = texts(8)

    def build_again(done: int, total: int) -> None:
        with pytest.raises(ValueError, match="another process is building here"):
            build_table(rows, tmp_path, label_names=NAMES)

    build_table(rows, tmp_path, label_names=NAMES, progress=build_again)


@dataclass(frozen=True)
class Odd:
    """Content whose reading fails as no decoder should."""

    error: type[Exception]
    extension: str = "txt"
    origin: str = "odd.txt"
    num_bytes: int = 1

    def read(self) -> bytes:
        raise self.error("in an odd\nway" * 100)


@pytest.mark.parametrize(
    "error", [MemoryError, RecursionError, OverflowError, NotImplementedError, AssertionError, OSError]
)
def test_any_failure_of_reading_makes_one_row_bad(tmp_path: Path, error: type[Exception]) -> None:
    rows = [*texts(4), Row(7, (Odd(error),))]
    with pytest.raises(ValueError, match=r"line 7: odd\.txt: .*in an odd way") as caught:
        build_table(rows, tmp_path / "out", label_names=NAMES)
    assert len(str(caught.value)) < 1_000
    assert build_table(rows, tmp_path / "out", label_names=NAMES, max_bad=1).split("train").num_samples == 4


def test_a_shard_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves under its own name is whole: bytes, then name, then the folder; the manifest last."""
    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        sync(descriptor)

    def rename(path: Path, name: Path) -> Path:
        done.append(("name", Path(name).name))
        return replace(path, name)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    build_table(texts(4), tmp_path / "out", label_names=NAMES)
    for name in ("plan", "000000.tar", "000000.idx", "train-000000.json", "manifest.json"):
        at = done.index(("name", name))
        assert done[at - 1] == ("sync", f".{name}.{os.getpid()}")
        assert done[at + 1][0] == "sync"
    names = [name for kind, name in done if kind == "name"]
    assert names == ["plan", "000000.tar", "000000.idx", "train-000000.json", "manifest.json"]
