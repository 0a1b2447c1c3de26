"""Keys, class names and paths that are markup, formulas, HTML or control characters can be shown everywhere."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from configs.run import difference, load
from data_shards.building.builder import build_table
from data_shards.building.inspection.contact_sheet import contact_sheet
from data_shards.building.raw_sample import Literal, Row
from data_shards.format.manifest import ShardEntry
from data_shards.storage.config import RemoteConfig
from data_shards.storage.remote_folder import RemoteFolder
from launch.cli import console, main
from launch.lifecycle.run_folder import RunFolder
from launch.pictures import drawing
from launch.report import status
from launch.run.creation import open_run
from trainer.distributed.world import World
from trainer.sinks.attempt_time import AttemptTime, read
from trainer.sinks.page import Story, page
from trainer.tasks.metric import Metric

NAMES = ("[/b]", "$\\bad{$", "<script>x</script>", "a\x1b[2J\x07", "_\udcff", "\u4f60\U0001f600", "x" * 10_000)
DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
URL = "https://user:word@host/data?token=abc"


@pytest.mark.parametrize("name", NAMES)
def test_class_names_are_drawn_whatever_they_are(tmp_path: Path, name: str) -> None:
    images = np.zeros((2, 4, 4, 3), np.float32)
    drawing.predictions(images, ["a", name], [name, name], tmp_path / "predictions.png")
    record = {"kind": "evaluation", "step": 1, f"label/accuracy/{name}": 0.5}
    lines = [{"kind": "train", "step": 1, "loss": 0.1}, record]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    drawing.loss_curve(tmp_path / "metrics.jsonl", tmp_path / "loss.png", "label", Metric("accuracy", "%"))
    drawing.confusion(np.eye(2, dtype=int), [name, "a"], tmp_path / "confusion.png")
    assert {path.name for path in tmp_path.glob("*.png")} == {"confusion.png", "loss.png", "predictions.png"}


@pytest.mark.parametrize("text", ["costs $3", "$\\bad{$", "a\x1b[2J\x00", "\u4f60"])
def test_a_contact_sheet_shows_text_and_class_names_whatever_they_are(tmp_path: Path, text: str) -> None:
    rows = [Row(0, (Literal(text.encode(), "txt"),), label=0)]
    build_table(rows, tmp_path / "shards", label_names=(f"{text}\x1b",))
    assert contact_sheet(tmp_path / "shards", tmp_path / "sheet.png") == 1


@pytest.mark.parametrize("name", NAMES[:6])
def test_a_page_shows_keys_and_names_whatever_they_are(name: str) -> None:
    records = [{"kind": "train", "step": step, f"loss/{name}": 1.0} for step in (1, 2)]
    event = {"kind": "event", "step": 2, "message": f"skipped: {name} {URL}"}
    made = page(Story(name, f"shards: {URL}\nname: {name}", [*records, event], [], []))
    made.encode()
    assert "<script>" not in made
    assert "\x1b" not in made
    assert "word" not in made
    assert "abc" not in made


@pytest.mark.parametrize("name", NAMES[:6])
def test_tables_and_bars_show_paths_whatever_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [dict.fromkeys(status.COLUMNS.values()) | {"run": f"/runs/{name}", "reason": f"{name}{URL}"}] * 2
    shown = io.StringIO()
    Console(file=shown, width=200).print(status.table(states))
    assert "word" not in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
    error = io.StringIO()
    monkeypatch.setattr("sys.stderr", error)
    with console.progress_bar(name) as advance:
        advance(1, 2)
    assert name[:1] in error.getvalue()


@pytest.mark.parametrize(("error", "expected"), [(ValueError, 2), (RuntimeError, 1)])
def test_an_error_is_told_without_control_characters_and_passwords(
    error: type[Exception], expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error(f"{URL}: key\x1b[2J\udcff\n  second line")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == expected
    told = capsys.readouterr().err
    assert "https://***@host/data?***: key\\x1b[2J\\udcff\n  second line\n" in told
    assert ("Traceback" in told) == (expected == 1)
    assert "word" not in told


def test_the_difference_of_two_runs_and_the_record_of_an_attempt_have_no_password(tmp_path: Path) -> None:
    old, new = load(DIGITS, ["data.shards=a"]), load(DIGITS, [f"data.shards={URL}"])
    assert difference(old, new) == ["data.shards: 'a' -> 'https://***@host/data?***'"]
    world = World.alone()
    folder = tmp_path / "0001"
    folder.mkdir()
    AttemptTime(folder, world).end(f"failed: {URL}: \x1b")
    assert read([folder])[-1].ended == "failed: https://***@host/data?***: \\x1b"


@pytest.mark.parametrize(("place", "others_may_read"), [(URL, False), ("s3://bucket/data", True)])
def test_a_config_with_a_password_is_read_by_its_user_alone(
    tmp_path: Path, shards: Path, place: str, others_may_read: bool
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(load(DIGITS, [f"data.shards={place}", f"data.datasets.a.shards={shards}"]), folder)
    assert load(folder.config_path).data.shards == place
    assert bool(folder.config_path.stat().st_mode & 0o077) == others_may_read


def test_shards_behind_a_url_are_named_without_its_password(tmp_path: Path) -> None:
    folder = RemoteFolder("https://user:word@host/data", RemoteConfig(cache_folder=str(tmp_path)))
    shard = ShardEntry("train/000000.tar", 64, 100, "0" * 64, "0" * 64, {})
    assert (str(folder), folder.name(shard)) == ("https://***@host/data", "https://***@host/data/train/000000.tar")
