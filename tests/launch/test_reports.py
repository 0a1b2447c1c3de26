"""The report is made of what a run left; what is missing is said in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from launch.chaos.campaign import Campaign
from launch.cli import reports
from launch.cli.main import app
from launch.lifecycle.run_folder import RunFolder
from trainer.sinks.page import Story

Door = Callable[..., list[dict[str, Any]]]
CONFIG = """
data: {inputs: {image: {modality: image, height: 8, width: 8}}}
model:
  inputs: {image: {height: 8, width: 8}}
  outputs: {label: {kind: label, num_classes: 10}}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config_path.write_text(CONFIG)
    folder.metrics_path.write_text(
        '{"kind": "train", "step": 1, "loss": 2.0}\n{"kind": "train", "step": 2, "loss": 1.0}\n'
    )
    return folder


def test_report_writes_one_page_into_the_run(run: RunFolder) -> None:
    result = CliRunner().invoke(app, ["report", str(run.path), "--json"])
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert told["attempts"] == 0
    assert "train: loss" in Path(told["report"]).read_text()


def test_a_config_of_another_encoding_is_reported_all_the_same(run: RunFolder) -> None:
    run.config_path.write_bytes(b"# caf\xe9\n" + run.config_path.read_bytes())
    assert CliRunner().invoke(app, ["report", str(run.path)]).exit_code == 0
    assert "# caf\ufffd" in (run.path / "report.html").read_text()


def test_attention_of_a_run_without_a_checkpoint_is_refused(run: RunFolder) -> None:
    error = CliRunner().invoke(app, ["attention", str(run.path)]).exception
    assert isinstance(error, ValueError)
    assert "no complete checkpoint yet; train further" in str(error)


def test_chaos_wants_shards_and_a_new_folder(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    error = CliRunner().invoke(app, ["chaos", str(config)]).exception
    assert isinstance(error, ValueError)
    assert "perceiver data build" in str(error)
    error = (
        CliRunner().invoke(app, ["chaos", str(config), f"data.shards={tmp_path}", "--keep", str(tmp_path)]).exception
    )
    assert isinstance(error, ValueError)
    assert "--keep needs a new folder" in str(error)


def test_the_report_is_of_all_that_the_run_left(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Story] = []

    def page(story: Story) -> bytes:
        seen.append(story)
        return b"a page"

    monkeypatch.setattr("trainer.sinks.page.page", page)
    monkeypatch.setattr("launch.lifecycle.attempts.times", lambda folder: [folder.path])
    monkeypatch.setattr("trainer.sinks.attempt_time.goodput", lambda attempts: 0.875 if attempts == [run.path] else 0.0)
    for name in ("b", "a", "c", "d"):
        (run.pictures_folder / f"{name}.png").touch()
        (run.pictures_folder / f"{name}.txt").touch()
    result = CliRunner().invoke(app, ["report", str(run.path)], catch_exceptions=False)
    out = run.path / "report.html"
    assert out.read_bytes() == b"a page"
    assert result.stdout.splitlines() == [f"report: {out}", "attempts: 1", "goodput: 87.5%", "skipped steps: 0"]
    [story] = seen
    assert (story.name, story.config, story.attempts) == ("run", CONFIG, [run.path])
    assert [record["loss"] for record in story.records] == [2.0, 1.0]
    assert [path.name for path in story.pictures] == ["a.png", "b.png", "c.png", "d.png"]
    assert [path.name for path in story.texts] == ["a.txt", "b.txt", "c.txt", "d.txt"]
    result = CliRunner().invoke(app, ["report", str(run.path), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == {"report": str(out), "attempts": 1, "goodput": 0.875, "skipped_steps": 0}


def test_attention_is_drawn_of_the_sample_and_the_checkpoint_that_were_named(door: Door) -> None:
    calls = door("launch.report.attention_pictures.main", [Path("a\x1b.png"), Path("b.png")])
    usual = CliRunner().invoke(app, ["attention", "run"], catch_exceptions=False)
    words = ["attention", "run", "--sample", "3", "--checkpoint", "best", "--weights", "ema", "--json"]
    asked = CliRunner().invoke(app, words)
    assert calls == [
        {"path": Path("run"), "sample": 0, "which": "newest", "weights": ""},
        {"path": Path("run"), "sample": 3, "which": "best", "weights": "ema"},
    ]
    assert usual.stdout.splitlines()[1] == "pictures: b.png"
    assert "\x1b" not in usual.stdout
    assert json.loads(asked.stdout) == {"pictures": ["a\x1b.png", "b.png"]}
    assert CliRunner().invoke(app, ["attention", "run", "--sample", "-1"]).exit_code == 2


@pytest.fixture
def campaigns(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each campaign was asked for; none is made."""
    asked: list[dict[str, Any]] = []

    def run(self: Campaign, num_faults: int, *, num_resizes: int = 0, progress: Callable[[int, int], None]) -> Any:  # noqa: ANN401
        progress(3, 7)
        self.folder.mkdir(parents=True)
        asked.append({**vars(self), "num_faults": num_faults, "num_resizes": num_resizes})
        equal = num_faults - (self.seed == 8)
        return {"faults": num_faults, "survived": num_faults - (self.seed == 9), "bit_equal": equal}

    monkeypatch.setattr(Campaign, "run", run)
    return asked


def test_a_campaign_is_what_was_asked_for_and_its_folder_stays_where_that_was_asked_for(
    campaigns: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "shards").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["chaos", "config.yaml", "data.shards=shards", "train.steps=40"]
    more = ["--faults", "1", "--seed", "3", "--procs", "2", "--resizes", "0", "--keep", "kept", "--json"]
    results = [CliRunner().invoke(app, each, catch_exceptions=False) for each in (words, [*words, *more])]
    assert [result.exit_code for result in results] == [0, 0]
    usual, asked = campaigns
    assert usual["command"] == asked["command"] == ["train", "config.yaml", "data.shards=shards", "train.steps=40"]
    assert usual["shards"] == asked["shards"] == tmp_path / "shards"
    names = ("steps", "num_ranks", "seed", "num_faults", "num_resizes")
    assert [usual[name] for name in names] == [40, 1, 0, 20, 0]
    assert [asked[name] for name in names] == [40, 2, 3, 1, 0]
    assert usual["folder"].is_absolute()
    assert not usual["folder"].parent.exists()
    assert asked["folder"] == tmp_path / "kept"
    assert asked["folder"].is_dir()
    assert all("3/7" in result.stderr and "faults " in result.stderr for result in results)
    assert results[0].stdout.splitlines() == ["faults: 20", "survived: 20", "bit equal: 20"]
    assert json.loads(results[1].stdout) == {"faults": 1, "survived": 1, "bit_equal": 1}
    CliRunner().invoke(app, [*words, "--resizes", "2"], catch_exceptions=False)
    assert campaigns[-1]["num_resizes"] == 2


@pytest.mark.parametrize("seed", [8, 9])
def test_a_campaign_with_a_run_that_ended_otherwise_has_status_1(
    campaigns: list[dict[str, Any]], tmp_path: Path, seed: int
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    words = ["chaos", str(tmp_path / "config.yaml"), f"data.shards={tmp_path}", "--seed", str(seed)]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 1


@pytest.mark.parametrize("words", [["--faults", "0"], ["--procs", "0"], ["--resizes", "-1"]])
def test_a_campaign_of_nothing_is_refused(words: list[str], campaigns: list[dict[str, Any]]) -> None:
    assert CliRunner().invoke(app, ["chaos", "config.yaml", *words]).exit_code == 2
    assert campaigns == []


def test_code_is_trusted_only_where_that_is_said_and_then_in_every_rank_of_a_campaign(
    campaigns: list[dict[str, Any]], door: Door, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    door("launch.report.attention_pictures.main", [])
    trusted = door("configs.plugins.trust", None)
    chaos = ["chaos", str(tmp_path / "config.yaml"), f"data.shards={tmp_path}"]
    for words, folder in ((["attention", "run"], Path("run")), (chaos, tmp_path)):
        for more in ([], ["--trust-code"]):
            trusted.clear()
            assert CliRunner().invoke(app, [*words, *more], catch_exceptions=False).exit_code == 0
            assert trusted == [{"run": folder}] * len(more)
    assert [campaign["command"] for campaign in campaigns] == [
        ["train", *chaos[1:]],
        ["train", *chaos[1:], "--trust-code"],
    ]


def test_help_says_what_there_is(explained: Callable[[typer.Typer], None]) -> None:
    explained(reports.app)
