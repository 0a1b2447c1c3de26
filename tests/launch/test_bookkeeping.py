"""Damage in what a run remembers of itself is told once and ends nothing: neither a command nor the next start."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.run import load
from data_shards.files import history
from data_shards.loading.quarantine import BadSample, Quarantine
from launch.lifecycle import attempts
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.restart_policy import RestartConfig, verdict
from launch.lifecycle.run_folder import RunFolder
from launch.pictures import drawing
from launch.planning.plan import _measured
from launch.report import status
from launch.schedulers import submission
from launch.slurm import queue
from trainer.distributed.world import World
from trainer.sinks.attempt_time import AttemptTime
from trainer.sinks.page import Story, page, read_records
from trainer.sinks.writers import JsonLines
from trainer.tasks.metric import Metric

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
ALONE = World(0, 1, 0, torch.device("cpu"))
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "high byte": lambda content: content[: len(content) // 2] + b"\x80" + content[len(content) // 2 :],
    "other json": lambda _: b"[1, 2]\n",
    "nothing in it": lambda _: b"{}\n",
    "unknown key": lambda content: content.replace(b'{"', b'{"unheard_of": 1, "', 1),
    "texts": lambda content: content.replace(b": 1", b': "1').replace(b"1,", b'1",'),
    "nulls": lambda content: content.replace(b": 1", b": null "),
    "nested": lambda _: b"[" * 50_000 + b"\n",
    "huge numbers": lambda content: content.replace(b": 1", b": 1" + b"0" * 400),
    "infinite": lambda content: content.replace(b": 1", b": 1e999, "),
}


NUM_SAMPLES = {("train", "", "image"): 10}
SUBMISSION = {"job_id": "1", "job_name": "a", "submitted_at": 1.0, "nodes": 1, "processes_per_node": 1}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with a record of everything."""
    monkeypatch.setattr(queue, "find", lambda *_: None)
    folder = RunFolder(tmp_path / "run")
    for part in (folder.checkpoints_folder, folder.pictures_folder):
        part.mkdir(parents=True)
    shutil.copy(CONFIG, folder.config_path)
    for _ in range(2):
        number = attempts.begin(folder, job_id="1", nodes=["n1"]).number
        attempts.write_rank(folder, number, RankRecord(0, "n1", 1, 1))
        attempts.end(folder, number, 1)
        AttemptTime(folder.attempts_folder / f"{number:04d}", ALONE).end("preempted (SIGTERM)")
    sink = JsonLines(folder.metrics_path, 0)
    for step in range(1, 20):
        sink.write("train", {"step": step, "loss": 1.0, "step_seconds": 1.5, "samples_per_second": 10.0})
        sink.write("evaluation", {"step": step, "samples": 10, "label/accuracy": 1.0})
        sink.write("save", {"step": step, "seconds": 1.0, "error": ""})
    sink.close()
    Quarantine(folder.quarantine_path, 1.0, NUM_SAMPLES).add(BadSample("a.tar", "k", "train", "", "image"))
    folder.submission_path.write_text(
        '{"job_id": "1", "job_name": "a", "submitted_at": 1.0, "nodes": 1, "processes_per_node": 1}'
    )
    folder.evaluation_path.write_text('{"step": 1}')
    folder.lock_path.write_text('{"host": "other", "pid": 1}')
    return folder


def everything(folder: RunFolder) -> None:
    """Ask whatever reads a run's history, then start again."""
    status.read(folder)
    submission.read(folder)
    _measured(folder)
    entries = attempts.times(folder)
    page(Story("run", "", read_records(folder.metrics_path), entries, []))
    before = attempts.current(folder)
    attempt = attempts.begin(folder, job_id="2", nodes=["n1"])
    assert attempt.number > before
    attempts.end(folder, attempt.number, 1)
    verdict(attempts.history(folder), RestartConfig(), stop_requested=False)
    AttemptTime(folder.attempts_folder / f"{attempt.number:04d}", ALONE).end("finished")
    assert attempts.times(folder)[-1].number == attempt.number
    JsonLines(folder.metrics_path, 10).close()
    Quarantine(folder.quarantine_path, 1.0, NUM_SAMPLES).add(BadSample("a.tar", "l", "train", "", "image"))


def records(folder: RunFolder) -> list[Path]:
    return [path for path in sorted(folder.path.rglob("*")) if path.is_file() and path != folder.config_path]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_run_stops_neither_a_command_nor_the_next_start(run: RunFolder, damage: str) -> None:
    for path in records(run):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    everything(run)


def test_copies_of_records_are_none(run: RunFolder) -> None:
    before = len(attempts.history(run)), len(attempts.times(run)), len(attempts.ranks(run, 1))
    shutil.copytree(run.attempts_folder / "0001", run.attempts_folder / "0001.bak")
    shutil.copytree(run.attempts_folder / "0001", run.attempts_folder / "0001 (copy)")
    (run.attempts_folder / "0007").write_text("a file")
    shutil.copy(run.attempts_folder / "0001" / "time.json", run.attempts_folder / "0001" / "time (copy).json")
    shutil.copy(run.attempts_folder / "0001" / "rank_0.json", run.attempts_folder / "0001" / "rank_0 (copy).json")
    assert (len(attempts.history(run)), len(attempts.times(run)), len(attempts.ranks(run, 1))) == before
    everything(run)


def test_the_loss_curve_is_drawn_from_the_lines_that_can_be_read(run: RunFolder) -> None:
    lines = run.metrics_path.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b"1.0", b'"x"')
    lines[1] = lines[1].replace(b"1.0", b"null")
    run.metrics_path.write_bytes(b"".join([*lines, b"[" * 10_000, b"\n\x80\n[]\n", b'{"kind": "train", "st']))
    drawing.loss_curve(run.metrics_path, run.pictures_folder / "loss.png", "label", Metric("accuracy", "%"))
    assert (run.pictures_folder / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_random_damage_everywhere_is_survived(run: RunFolder) -> None:
    draws = random.Random(0)
    for path in records(run):
        content = bytearray(path.read_bytes())
        for _ in range(min(len(content), 5)):
            content[draws.randrange(len(content))] = draws.randrange(256)
        path.write_bytes(content)
    everything(run)


def test_damage_is_told_once_and_nothing_that_was_there_is_lost(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    history.tell.cache_clear()
    path = run.attempts_folder / "0001" / "time.json"
    path.write_text("")
    for _ in range(3):
        assert [entry.number for entry in attempts.times(run)] == [2]
    assert capsys.readouterr().err.count("time.json: cannot be read") == 1
    number = attempts.begin(run, job_id="2", nodes=["n1"]).number
    AttemptTime(run.attempts_folder / f"{number:04d}", ALONE).end("finished")
    assert path.read_text() == ""
    assert [entry.number for entry in attempts.times(run)] == [2, 3]


def test_a_byte_above_0x7f_costs_its_line_of_the_metrics_and_no_other(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    history.tell.cache_clear()
    lines = run.metrics_path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:5] + b"\xff" + lines[3][6:]
    run.metrics_path.write_bytes(b"".join(lines) + b'{"kind": "train", "st')
    assert len(read_records(run.metrics_path)) == 56
    assert "metrics.jsonl: 1 of 57 lines cannot be read" in capsys.readouterr().err
    JsonLines(run.metrics_path, 10).close()
    assert run.metrics_path.read_bytes().splitlines(keepends=True) == lines[:30]


def test_the_configuration_that_a_run_was_made_with_is_not_history(run: RunFolder) -> None:
    run.config_path.write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load(run.config_path)
