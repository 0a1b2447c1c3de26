"""Verifying whole folders: every shard of every split is read, whatever is wrong with another one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest

from data_shards.building import adoption
from data_shards.building.inspection import verification
from data_shards.building.inspection.verification import Bad, Report, partners
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.modalities.kinds.text import TextConfig
from data_shards.storage.local_folder import LocalFolder

TextShards = Callable[..., Manifest]
WriteTar = Callable[..., Path]


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes a second, and what it does is the same in a thread."""
    monkeypatch.setattr("data_shards.building.worker_processes.start", ThreadPoolExecutor)


@pytest.mark.usefixtures("in_threads")
def test_all_shards_of_all_splits_are_counted_together(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path, [3, 4], "train")
    text_shards(tmp_path, [2], "test")
    told: list[tuple[int, int]] = []
    report = verification.verify(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert (report.ok, report.samples, report.left_out) == (True, 9, 0)
    assert report.labels == {"0": 3, "1": 4, "2": 2}
    assert report.shapes == {"text": [[10], [10]]}
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert verification.verify(tmp_path).samples == 9


@pytest.mark.usefixtures("in_threads")
def test_a_class_without_a_sample_is_counted_as_0(tmp_path: Path, text_shards: TextShards) -> None:
    shards = text_shards(tmp_path, [3])
    manifest.write(replace(shards, label_names=("a", "b", "c", "d")), tmp_path)
    assert verification.verify(tmp_path).labels == {"a": 1, "b": 1, "c": 1, "d": 0}


@pytest.mark.usefixtures("in_threads")
def test_a_killed_process_is_told_with_the_shard_that_it_read(
    tmp_path: Path, text_shards: TextShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(ThreadPoolExecutor):
        def submit(self, *_: object) -> Future[Report]:  # type: ignore[override]
            future: Future[Report] = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    text_shards(tmp_path, [3])
    monkeypatch.setattr("data_shards.building.worker_processes.start", Broken)
    with pytest.raises(ValueError, match=r"000000\.tar: a process was killed .*--jobs 1"):
        verification.verify(tmp_path)


def test_reports_are_added() -> None:
    total = Report(labels={"a": 1})
    total.add(Report(2, 1, [Bad("s", "k", "r")], [Bad("s", "i", "r")], {"image": [[3, 5], [4, 9]]}, {"a": 2, "b": 1}))
    total.add(Report(3, 1, [Bad("s", "l", "r")], [], {"image": [[2, 7], [3, 20]], "text": [[1], [1]]}, {"b": 1}))
    assert (total.samples, total.left_out) == (5, 2)
    assert [bad.key for bad in total.bad] == ["k", "l"]
    assert [bad.key for bad in total.incomplete] == ["i"]
    assert total.shapes == {"image": [[2, 5], [4, 20]], "text": [[1], [1]]}
    assert total.labels == {"a": 3, "b": 2}
    assert not total.ok


def test_shapes_of_other_numbers_of_axes_are_counted_apart() -> None:
    one, other = Report(), Report()
    for shape in ((3, 4), (5,), (2, 6), (7,)):
        one.add_shape("eeg", shape)
    other.add_shape("eeg", (9,))
    one.add(other)
    assert one.shapes == {"eeg": [[2, 4], [3, 6]], "eeg of 1 axes": [[5], [9]]}


def first(folder: Path, config: DataConfig | None = None) -> Report:
    """Verify the first shard of train."""
    shards = manifest.read(folder)
    entry = shards.split("train").shards[0]
    expected = verification.partners(shards, "train")
    return verification.verify_shard(
        LocalFolder(folder), entry, verification.intake(shards, "train", config), expected, shards.label_names
    )


def test_an_index_that_is_not_the_tars_is_bad(tmp_path: Path, text_shards: TextShards) -> None:
    shards = text_shards(tmp_path, [3])
    train = shards.split("train")
    other = manifest.Shards.of([replace(train.shards[0], index_sha256="0" * 64)])
    manifest.write(replace(shards, splits={"train": replace(train, shards=other)}), tmp_path)
    (bad,) = first(tmp_path).bad
    assert bad.key == ""
    assert "its index is not the manifest's; run `perceiver data index" in bad.reason


def test_a_changed_tar_that_still_is_one_is_bad_as_a_whole(tmp_path: Path, text_shards: TextShards) -> None:
    text_shards(tmp_path, [3])
    path = tmp_path / "train/000000.tar"
    content = bytearray(path.read_bytes())
    content[512] ^= 1
    path.write_bytes(content)
    report = first(tmp_path)
    assert [(bad.key, "its sha256 is not the manifest's" in bad.reason) for bad in report.bad] == [("", True)]
    assert report.samples == 0


def test_a_sample_of_which_some_part_is_never_drawn_is_decoded_whole(
    tmp_path: Path, write_tar: WriteTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_frame(role: str, _: object) -> tuple[int, ...]:
        raise OverflowError("the last of text")

    write_tar(tmp_path / "a.tar", [(f"{n}.txt", b"x") for n in range(3)])
    adoption.index(tmp_path)
    monkeypatch.setattr(TextConfig, "decoded_shape", staticmethod(no_frame))
    report = first(tmp_path, DataConfig(inputs={"text": TextConfig(num_bytes=4)}))
    assert [(bad.key, bad.reason) for bad in report.bad] == [
        (str(n), ".txt: OverflowError: the last of text") for n in range(3)
    ]
    assert report.shapes == {}


@pytest.mark.parametrize(
    ("num_with", "total", "expected"), [(95, 100, True), (94, 100, False), (9, 10, True), (2, 3, True), (1, 2, False)]
)
def test_what_all_but_a_twentieth_or_one_have_is_expected(
    tmp_path: Path, write_tar: WriteTar, num_with: int, total: int, expected: bool
) -> None:
    members = [
        (f"{n:03d}.{kind}", b"0") for n in range(total) for kind in ("txt", "cls") if kind == "txt" or n < num_with
    ]
    write_tar(tmp_path / "a.tar", members)
    adopted = adoption.index(tmp_path)
    assert verification.partners(adopted, "train") == ({"text", "label"} if expected else {"text"})
    assert verification.partners(replace(adopted, adopted=False), "train") == frozenset()


def test_reports_of_shards_are_added() -> None:
    one, other = Report(labels={"cat": 0, "dog": 0}), Report(3, 1, [Bad("a", "b", "c")], [Bad("d", "e", "f")])
    one.add_shape("photo", (3, 9))
    one.add_shape("photo", (5, 2))
    one.count_labels(["dog", "cat", "dog"])
    other.add_shape("photo", (4, 10))
    other.add_shape("sound", (7,))
    other.count_labels(["dog", "fox"])
    one.add(other)
    one.add(Report(2, labels={"cat": 1}))
    assert one == Report(
        samples=5,
        left_out=1,
        bad=[Bad("a", "b", "c")],
        incomplete=[Bad("d", "e", "f")],
        shapes={"photo": [[3, 2], [5, 10]], "sound": [[7], [7]]},
        labels={"cat": 2, "dog": 3, "fox": 1},
    )
    assert not one.ok
    assert Report(incomplete=[Bad("d", "e", "f")]).ok


def test_shapes_of_another_number_of_axes_are_told_apart() -> None:
    report = Report()
    for shape in ((2, 3), (5,), (4, 1), (1,), ()):
        report.add_shape("x", shape)
    assert report.shapes == {"x": [[2, 1], [4, 3]], "x of 1 axes": [[1], [5]], "x of 0 axes": [[], []]}


@pytest.mark.parametrize(
    ("num_with", "expected"),
    [(100, {"txt", "png"}), (95, {"txt", "png"}), (94, {"txt"}), (60, {"txt"}), (0, {"txt"})],
)
def test_a_file_that_nearly_all_samples_have_is_expected_of_all(num_with: int, expected: set[str]) -> None:
    kinds = {"png/txt": num_with, "txt": 100 - num_with}
    entry = ShardEntry(
        "train/0.tar", 100, 1, "1" * 64, "2" * 64, {kind: count for kind, count in kinds.items() if count}
    )
    shards = Manifest({"train": Split(Shards.of([entry]), ())}, (), adopted=True)
    names = {"txt": "text", "png": "image"}
    assert partners(shards, "train") == {names[suffix] for suffix in expected}
    assert partners(replace(shards, adopted=False), "train") == frozenset()


@pytest.mark.parametrize(
    ("num_samples", "num_labels", "is_expected"),
    [
        (3, 3, True),
        (3, 2, True),
        (3, 1, False),
        (2, 1, False),
        (1, 0, False),
        (3, 4, False),
        (100, 95, True),
        (100, 94, False),
    ],
)
def test_a_label_is_expected_where_one_sample_in_twenty_lacks_it_or_a_single_one(
    num_samples: int, num_labels: int, is_expected: bool
) -> None:
    entry = ShardEntry("train/0.tar", num_samples, 1, "1" * 64, "2" * 64, {"txt": num_samples})
    shards = Manifest({"train": Split(Shards.of([entry]), (num_labels,))}, ("a",), adopted=True)
    assert ("label" in partners(shards, "train")) == is_expected
