"""Every option of the commands of a run's life reaches what the command does, and its status is the command's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from configs.run import load
from configs.tiny import load_tiny
from launch.cli import runs
from launch.cli.main import app
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.cluster import load as profile_of

Door = Callable[..., list[dict[str, Any]]]
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
RUN = Path("runs/a")
DIGITS, PLAIN = load(CONFIG), profile_of("plain")


def status_of(*words: str | Path) -> int:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).exit_code


@pytest.mark.parametrize(
    ("words", "function", "expected"),
    [
        (
            ["submit", CONFIG, "--run", RUN, "--cluster", "plain"],
            "launch.supervise.submit.submit",
            {"config": DIGITS, "path": RUN, "profile": PLAIN, "dry_run": False, "as_json": False},
        ),
        (
            ["submit", CONFIG, "--run", RUN, "--cluster", "plain", "--tiny"],
            "launch.supervise.submit.submit",
            {"config": load_tiny(CONFIG), "path": RUN, "profile": PLAIN, "dry_run": False, "as_json": False},
        ),
        (
            ["submit", CONFIG, "seed=3", "--run", RUN, "--cluster", "plain", "--nodes", "3", "--minutes", "9",
             "--dry-run", "--json"],
            "launch.supervise.submit.submit",
            {"config": replace(DIGITS, seed=3), "path": RUN, "profile": replace(PLAIN, nodes=3, minutes=9),
             "dry_run": True, "as_json": True},
        ),
        (
            ["resume", RUN],
            "launch.supervise.submit.resume",
            {"path": RUN, "profile_name": None, "changes": {"nodes": 0, "minutes": 0}, "overrides": (),
             "as_json": False},
        ),
        (
            ["resume", RUN, "a=1", "b=2", "--cluster", "plain", "--nodes", "2", "--minutes", "5", "--json"],
            "launch.supervise.submit.resume",
            {"path": RUN, "profile_name": "plain", "changes": {"nodes": 2, "minutes": 5}, "overrides": ["a=1", "b=2"],
             "as_json": True},
        ),
        (
            ["sweep", CONFIG, "seed=1,2", "--run", RUN, "--cluster", "plain"],
            "launch.supervise.submit.sweep",
            {"config_path": CONFIG, "assignments": ["seed=1,2"], "path": RUN, "profile": PLAIN, "dry_run": False,
             "as_json": False},
        ),
        (
            ["sweep", CONFIG, "seed=1", "--run", RUN, "--cluster", "plain", "--nodes", "4", "--dry-run", "--json"],
            "launch.supervise.submit.sweep",
            {"config_path": CONFIG, "assignments": ["seed=1"], "path": RUN, "profile": replace(PLAIN, nodes=4),
             "dry_run": True, "as_json": True},
        ),
        (
            ["status"],
            "launch.report.status.main",
            {"paths": (), "watch": False, "as_json": False},
        ),
        (
            ["status", RUN, "b", "--watch", "--json"],
            "launch.report.status.main",
            {"paths": [RUN, Path("b")], "watch": True, "as_json": True},
        ),
        (
            ["logs", RUN],
            "launch.report.logs.main",
            {"path": RUN, "rank": 0, "attempt": 0, "batch": False, "follow": False},
        ),
        (
            ["logs", RUN, "--rank", "1", "--attempt", "2", "--batch", "-f"],
            "launch.report.logs.main",
            {"path": RUN, "rank": 1, "attempt": 2, "batch": True, "follow": True},
        ),
        (["stop", RUN], "launch.supervise.stop.stop", {"path": RUN}),
        (["cancel", RUN], "launch.supervise.stop.cancel", {"path": RUN}),
        (
            ["fork", RUN, "b"],
            "launch.run.fork.fork",
            {"path": RUN, "new_path": Path("b"), "overrides": (), "which": "newest"},
        ),
        (
            ["fork", RUN, "b", "a=1", "--checkpoint", "best"],
            "launch.run.fork.fork",
            {"path": RUN, "new_path": Path("b"), "overrides": ["a=1"], "which": "best"},
        ),
        (["diff", RUN, "b"], "launch.run.fork.diff", {"one": RUN, "other": Path("b")}),
        (["doctor"], "launch.doctor.examination.main", {"profile_name": None, "folder": Path(), "as_json": False}),
        (
            ["doctor", "--cluster", "plain", "--folder", RUN, "--json"],
            "launch.doctor.examination.main",
            {"profile_name": "plain", "folder": RUN, "as_json": True},
        ),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_is_done_and_how_that_ends_is_the_status(
    door: Door, words: list[str | Path], function: str, expected: dict[str, object]
) -> None:
    calls = door(function, 3)
    assert status_of(*words) == 3
    assert calls == [expected]
    assert isinstance(expected.get("profile", PLAIN), ClusterConfig)


@pytest.mark.parametrize(("more", "is_dry"), [([], False), (["--dry-run", "--json"], True)])
def test_a_sweep_of_this_machine_is_of_every_combination(door: Door, more: list[str], is_dry: bool) -> None:
    calls = door("launch.supervise.local.sweep", 3)
    assert status_of("sweep", CONFIG, "seed=1,2", "--run", RUN, "--procs", "2", *more) == 3
    [given] = calls
    assert [(config.seed, folder.path.name) for config, folder in given.pop("runs")] == [(1, "seed=1"), (2, "seed=2")]
    assert given == {"num_processes": 2, "dry_run": is_dry, "as_json": is_dry}


@pytest.mark.parametrize("more", [[], ["--cluster", "plain", "--procs", "1"]])
def test_a_sweep_is_of_a_cluster_or_of_this_machine_and_never_of_both(more: list[str]) -> None:
    with pytest.raises(ValueError, match="give one of --cluster and --procs"):
        status_of("sweep", CONFIG, "seed=1", "--run", RUN, *more)


@pytest.mark.parametrize(
    "words",
    [
        ["submit", CONFIG, "--run", RUN, "--cluster", "plain", "--nodes", "-1"],
        ["submit", CONFIG, "--run", RUN, "--cluster", "plain", "--minutes", "-1"],
        ["submit", CONFIG, "--run", RUN],
        ["submit", CONFIG, "--cluster", "plain"],
        ["sweep", CONFIG, "--run", RUN, "--procs", "1"],
        ["sweep", CONFIG, "seed=1", "--run", RUN, "--procs", "-1"],
        ["logs", RUN, "--rank", "-1"],
        ["logs", RUN, "--attempt", "-1"],
    ],
)
def test_a_number_below_0_and_a_word_that_is_missing_are_refused(words: list[str | Path]) -> None:
    assert status_of(*words) == 2


SOURCE = ["initial_weights.source=other@best"]


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (["submit", CONFIG, "--run", RUN, "--cluster", "plain"], [CONFIG.parent]),
        # The run that gives the weights has plug-ins of its own.
        (["submit", CONFIG, *SOURCE, "--run", RUN, "--cluster", "plain"], [CONFIG.parent, "other", "other@best"]),
        (["fork", RUN, "b"], [RUN]),
    ],
)
@pytest.mark.parametrize("more", [[], ["--trust-code"]])
def test_code_is_trusted_only_where_that_is_said(
    door: Door, words: list[str | Path], folders: list[str | Path], more: list[str]
) -> None:
    trusted = door("configs.plugins.trust", None)
    for function in ("supervise.submit.submit", "run.fork.fork"):
        door(f"launch.{function}")
    assert status_of(*words, *more) == 0
    assert sorted(str(given["run"]) for given in trusted) == sorted(map(str, folders if more else []))


def test_a_run_that_is_submitted_by_its_own_configuration_runs_its_own_code(door: Door, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.read_text())
    trusted = door("configs.plugins.trust", None)
    door("launch.supervise.submit.submit")
    for run, folders in ((tmp_path, [{"run": tmp_path}]), (tmp_path / "other", [])):
        trusted.clear()
        assert status_of("submit", tmp_path / "config.yaml", "--run", run, "--cluster", "plain") == 0
        assert trusted == folders


def test_help_says_what_there_is(explained: Callable[[typer.Typer], None]) -> None:
    explained(runs.app)
