"""The list of bad samples: each once, whoever meets it first, and what is too many of them."""

import errno
import fcntl
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.loading import quarantine
from data_shards.loading.quarantine import BadSample, Quarantine, num_listed, one_line

NUM_SAMPLES = {("train", "", ""): 1000, ("train", "", "image"): 10}


def bad(shard: str, key: str, modality: str = "") -> BadSample:
    return BadSample(shard, key, "train", "", modality, "reason")


def listed(path: Path) -> list[tuple[str, str]]:
    return [(line["shard"], line["key"]) for line in map(json.loads, path.read_text().splitlines())]


def test_a_sample_is_listed_once_and_one_of_the_same_key_in_another_shard_too(tmp_path: Path) -> None:
    path = tmp_path / "run/quarantine.jsonl"
    for number in range(2):
        found = Quarantine(path, 1.0, NUM_SAMPLES)
        for shard in ("a.tar", "b.tar", "a.tar"):
            found.add(bad(shard, "0"))
        assert listed(path) == [("a.tar", "0"), ("b.tar", "0")], number
    assert num_listed(path) == 2


def test_ranks_that_meet_a_sample_at_once_list_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other_waits = tmp_path / "quarantine.jsonl", threading.Event()
    dumps, flock = json.dumps, fcntl.flock
    first, second = (Quarantine(path, 1.0, NUM_SAMPLES) for _ in range(2))
    rank = threading.Thread(target=second.add, args=(bad("a.tar", "0"),))

    def slow(*words: object) -> str:
        # The first one has read the list and is about to write: now the other one comes.
        if not rank.ident:
            rank.start()
            while not other_waits.wait(0.01) and rank.is_alive():
                pass
        return dumps(*words)

    def told(*words: int) -> None:
        if threading.current_thread() is rank:
            other_waits.set()
        flock(*words)

    monkeypatch.setattr(quarantine.json, "dumps", slow)
    monkeypatch.setattr(quarantine.fcntl, "flock", told)
    first.add(bad("a.tar", "0"))
    rank.join(10)
    assert listed(path) == [("a.tar", "0")]


def test_a_modality_has_a_rate_of_its_own(tmp_path: Path) -> None:
    found = Quarantine(tmp_path / "quarantine.jsonl", 0.1, NUM_SAMPLES)
    for number in range(100):
        found.add(bad("a.tar", str(number)))
    found.add(bad("b.tar", "0", "image"))
    with pytest.raises(ValueError, match=r"2 of 10 image of split 'train' are bad, above data\.max_bad_rate = 0\.1"):
        found.add(bad("b.tar", "1", "image"))
    with pytest.raises(ValueError, match="101 of 1000 samples"):
        found.add(bad("b.tar", "2"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("two\nlines"), "two lines"),
        (OverflowError("too large"), "OverflowError: too large"),
        (MemoryError(), "MemoryError"),
        (ValueError("x" * 1000), "x" * 300 + " ..."),
    ],
)
def test_a_reason_is_one_line_of_bounded_length(error: Exception, told: str) -> None:
    assert one_line(error) == told


def test_a_disk_without_locks_lists_bad_samples_too_and_another_error_is_none_of_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(number: int) -> Callable[..., None]:
        def flock(*_: object) -> None:
            raise OSError(number, "no locks")

        return flock

    found = Quarantine(tmp_path / "quarantine.jsonl", 1.0, NUM_SAMPLES)
    for number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
        monkeypatch.setattr(quarantine.fcntl, "flock", refusing(number))
        found.add(bad("a.tar", str(number)))
    assert num_listed(tmp_path / "quarantine.jsonl") == 3
    monkeypatch.setattr(quarantine.fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError, match="no locks"):
        found.add(bad("a.tar", "x"))


def test_a_list_that_is_not_there_lists_nothing(tmp_path: Path) -> None:
    assert num_listed(tmp_path / "quarantine.jsonl") == 0


def test_a_listed_sample_is_on_the_disk(tmp_path: Path, disk_calls: list[tuple[str, str]]) -> None:
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path, 1.0, NUM_SAMPLES).add(bad("a.tar", "0"))
    assert disk_calls == [("sync", str(path))]


def test_too_many_bad_samples_are_told_with_the_first_ten_in_order(tmp_path: Path) -> None:
    found = Quarantine(tmp_path / "quarantine.jsonl", 0.012, NUM_SAMPLES)
    for number in range(12, 0, -1):
        found.add(bad("a.tar", f"{number:02d}"))
    with pytest.raises(ValueError, match="13 of 1000 samples") as caught:
        found.add(bad("a.tar", "00"))
    words = str(caught.value)
    assert [words.count(f"a.tar: {number:02d}: reason") for number in range(13)] == [1] * 10 + [0] * 3
    assert words.index("a.tar: 00:") < words.index("a.tar: 09:")
