"""Records of a run are damaged as they say, and whoever reads them goes on."""

import json
import random
from pathlib import Path

import pytest

from launch.chaos import damage
from launch.chaos.damage import damage_history
from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.run_folder import RunFolder
from trainer.health import run_lock


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    attempts.begin(folder, job_id="", nodes=["n1"])
    attempts.write_rank(folder, 1, RankRecord(0, "n1", 5))
    folder.metrics_path.write_text('{"kind": "train", "step": 1, "loss": 1.0}\n' * 3)
    folder.lock_path.write_text(json.dumps({"host": "n1", "pid": 5, "since": "noon"}))
    (folder.attempts_folder / "0001" / "time.json").write_text("{}")
    checkpoint = folder.checkpoints_folder / "step_00000005"
    checkpoint.mkdir()
    (checkpoint / "checkpoint.json").write_text('{"state": {"step": 5}, "files": {}}')
    return folder


def test_every_kind_of_record_is_damaged_and_the_next_start_begins_all_the_same(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    draws, done = random.Random(0), set()
    for _ in range(60):
        done.add(damage_history(folder, draws))
        assert attempts.newest_step(folder) == 5
        assert [each.number for each in attempts.history(folder)] == [1]
        attempts.ranks(folder, 1)
        attempts.times(folder)
        run_lock.claim_in(folder.lock_path)
    kinds = {name.rpartition(" ")[0] for name in done if name}
    assert {"start.json", "rank_0.json", "metrics.jsonl", "time.json", "lock", "copied"} <= kinds
    assert capsys.readouterr().err.count("skipped") > 0
    assert attempts.begin(folder, job_id="", nodes=["n1"]).number == 2


def test_a_seed_is_one_damage_in_whatever_order_the_files_are_listed(folder: RunFolder) -> None:
    folder.watch_folder.mkdir()
    # Its own has times in it, of any length.
    (folder.attempts_folder / "0001" / "start.json").write_text('{"number": 1}')
    (folder.watch_folder / "rank_0.json").write_text("{}")
    assert [damage_history(folder, random.Random(seed)) for seed in range(13)] == [
        "lock cut",
        "copied checkpoint",
        "rank_0.json cut",
        "metrics.jsonl cut",
        "rank_0.json flipped",
        "heartbeat emptied",
        "rank_0.json emptied",
        "time.json emptied",
        "lock cut",
        "lock emptied",
        "metrics.jsonl emptied",
        "start.json emptied",
        "",
    ]
    names = sorted(path.name for path in folder.checkpoints_folder.iterdir())
    assert names == ["step_00000005", "step_00000005.copy"]
    # A copy is not copied into: another record is damaged, or nothing where none is left.
    assert [damage_history(folder, random.Random(seed)) for seed in (1, 21)] == ["", "copied checkpoint"]


def test_a_flip_is_the_highest_bit_of_one_byte_and_a_cut_leaves_a_beginning() -> None:
    for seed in range(20):
        before, flipped = bytes(range(100)), bytearray(range(100))
        damage._flip(flipped, random.Random(seed))
        assert sorted(one ^ other for one, other in zip(before, flipped, strict=True)) == [0] * 99 + [0x80]
        cut = bytearray(before)
        damage._cut(cut, random.Random(seed))
        assert before.startswith(cut)
        assert len(cut) < 100
