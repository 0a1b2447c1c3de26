"""A run keeps its plug-ins: a copy in its frozen code, which decides once the run has begun."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs import plugins
from configs.run import load
from launch.cli.main import app
from launch.lifecycle.run_folder import RunFolder
from launch.report import status
from launch.run.creation import open_run
from launch.run.fork import diff, fork

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
SINK = """
from perceiver_trainer import RunSink

class Lines(RunSink):
    def write(self, kind, record):
        (self.run / "lines.txt").open("a").write(kind)
"""
TASK = """
from dataclasses import dataclass
from typing import ClassVar, Literal

from perceiver_trainer import LabelOutput, LabelTask, Metric

@dataclass(frozen=True, kw_only=True)
class MineOutput(LabelOutput):
    kind: Literal["mine"] = "mine"

@dataclass(frozen=True)
class MineTask(LabelTask):
    kind: ClassVar[str] = "mine"

    def metrics(self):
        return (Metric("top_seven"),)
"""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No plug-in outlives its test."""
    yield
    plugins.use(())
    plugins._trusted.clear()
    for name in [name for name in sys.modules if name.startswith("perceiver_plugins.")]:
        del sys.modules[name]


@pytest.fixture
def config(tmp_path: Path, shards: Path) -> Path:
    (tmp_path / "lines.py").write_text(SINK)
    path = tmp_path / "run.yaml"
    path.write_text("plugins: [lines.py]\n" + CONFIG.read_text().replace("shards: ''", ""))
    return path


@pytest.fixture
def run(tmp_path: Path, config: Path, shards: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    open_run(load(config, [f"data.shards={shards}"]), folder)
    return folder


def begin(folder: RunFolder) -> None:
    folder.metrics_path.write_text(json.dumps({"kind": "train", "step": 1, "loss": 1.0}) + "\n")


def reopen(folder: RunFolder, config: Path, shards: Path, *overrides: str) -> None:
    if config == folder.config_path:  # as `perceiver train` does
        plugins.trust(folder.path)
    open_run(load(config, [f"data.shards={shards}", *overrides]), folder)


def copy_of(folder: RunFolder) -> Path:
    return folder.code_folder / "plugins" / "lines.py"


def test_the_copy_is_frozen_with_the_run_and_named_in_its_configuration(run: RunFolder, tmp_path: Path) -> None:
    assert copy_of(run).read_text() == SINK
    assert "plugins:\n- code/plugins/lines.py\n" in run.config_path.read_text()
    (tmp_path / "lines.py").unlink()
    plugins.trust(run.path)
    assert load(run.config_path).plugins == (str(copy_of(run)),)


def test_a_run_is_published_with_the_record_of_its_plugins(tmp_path: Path, config: Path, shards: Path) -> None:
    """A fork brings a checkpoint: killed behind its publishing, the next start would record no copy any more."""
    recorded: list[bool] = []
    made = RunFolder(tmp_path / "run")
    open_run(
        load(config, [f"data.shards={shards}"]),
        made,
        more=lambda beside: recorded.append("lines.py" in beside.plugins_record_path.read_text()),
    )
    assert recorded == [True]


def test_a_run_that_was_moved_has_its_plugins_with_it(run: RunFolder, tmp_path: Path) -> None:
    moved = RunFolder(run.path.rename(tmp_path / "moved"))
    plugins.trust(moved.path)
    assert load(moved.config_path).plugins == (str(copy_of(moved)),)


def test_the_same_start_resumes(run: RunFolder, config: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for start in (lambda: None, lambda: begin(run)):
        start()
        reopen(run, config, shards)
        reopen(run, run.config_path, shards)
    assert capsys.readouterr().err == ""


def test_an_edit_is_taken_by_a_run_that_has_not_begun(
    run: RunFolder, config: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.py").write_text(SINK + "# edited\n")
    # What the first start leaves whose first batch fails in a plug-in.
    save(run.checkpoints_folder, 0, {})
    reopen(run, config, shards)
    assert copy_of(run).read_text().endswith("# edited\n")
    assert capsys.readouterr().err.endswith(f"had not begun; it takes {tmp_path}/lines.py as it is now\n")


def test_an_edit_is_refused_once_the_run_has_begun_and_its_own_copy_resumes(
    run: RunFolder, config: Path, shards: Path, tmp_path: Path
) -> None:
    begin(run)
    (tmp_path / "lines.py").write_text(SINK + "# edited\n")
    with pytest.raises(ValueError, match=r"the run began with another lines\.py than .*resume with its own copy"):
        reopen(run, config, shards)
    assert copy_of(run).read_text() == SINK
    reopen(run, run.config_path, shards)


def test_an_edited_copy_is_refused_once_the_run_has_begun_whatever_names_it(
    run: RunFolder, config: Path, shards: Path
) -> None:
    copy_of(run).write_text(SINK + "# edited before\n")
    reopen(run, run.config_path, shards)
    begin(run)
    reopen(run, run.config_path, shards)
    copy_of(run).write_text(SINK)
    for named in (run.config_path, config):
        with pytest.raises(ValueError, match=r"run/code/plugins/lines\.py: edited since .*perceiver fork "):
            reopen(run, named, shards)
    run.plugins_record_path.unlink()  # as of a run that an earlier version made
    reopen(run, run.config_path, shards)


@pytest.mark.parametrize("where", ["copy", "own"])
def test_a_fork_takes_edited_code_and_names_its_file(
    run: RunFolder, tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    plugins.trust(run.path)
    path = copy_of(run) if where == "copy" else tmp_path / "lines.py"
    path.write_text(SINK + "# edited\n")
    assert fork(run.path, tmp_path / "new", [] if where == "copy" else [f"plugins=[{path}]"]) == 0
    new = RunFolder(tmp_path / "new")
    assert copy_of(new).read_text().endswith("# edited\n")
    assert f"note: {path}: other code than {run.path} began with\n" in capsys.readouterr().err
    begin(new)
    reopen(new, new.config_path, shards)
    copy_of(new).write_text(SINK)
    with pytest.raises(ValueError, match=r"new/code/plugins/lines\.py: edited since"):
        reopen(new, new.config_path, shards)


def test_another_plugin_is_another_run_once_it_has_begun(
    run: RunFolder, config: Path, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.py").write_text(SINK.replace("Lines", "More"))
    both = "plugins=[lines.py,more.py]"
    begin(run)
    with pytest.raises(ValueError, match=r"(?s)another configuration.*plugins: "):
        reopen(run, config, shards, both)
    run.metrics_path.unlink()
    reopen(run, config, shards, both)
    assert sorted(path.name for path in copy_of(run).parent.iterdir()) == ["lines.py", "more.py"]


def test_a_task_that_cannot_be_judged_is_refused_before_there_is_a_run(
    tmp_path: Path, config: Path, shards: Path
) -> None:
    (tmp_path / "lines.py").write_text(TASK)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(plugins.PluginError, match=r"lines\.py:15: .*expected a Result with a number for each of top_s"):
        open_run(
            load(config, [f"data.shards={shards}", "data.eval_split=train", "model.outputs.label.kind=mine"]), folder
        )
    assert not folder.exists


def test_a_fork_takes_them_along_and_diff_names_an_edit(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.trust(run.path)
    assert fork(run.path, tmp_path / "new", ["optimizer.learning_rate=0.5"]) == 0
    new = RunFolder(tmp_path / "new")
    assert copy_of(new).read_text() == SINK
    copy_of(new).write_text(SINK + "# edited\n")
    capsys.readouterr()
    plugins._trusted.clear()
    assert diff(run.path, new.path) == 1
    told = capsys.readouterr().out
    assert "optimizer.learning_rate: " in told
    assert "code/plugins/lines.py\n" in told


def words_of(run: RunFolder, tmp_path: Path) -> dict[str, list[str]]:
    folder = str(run.path)
    return {
        "eval": ["eval", folder],
        "fork": ["fork", folder, str(tmp_path / "new")],
        "attention": ["attention", folder],
        "export": ["export", folder, str(tmp_path / "out")],
        "plan": ["plan", f"{folder}/config.yaml"],
        "train": ["train", f"{folder}/config.yaml", "--run", str(tmp_path / "new")],
        "chaos": ["chaos", f"{folder}/config.yaml"],
        "build": ["data", "build", "table", "rows.csv", "out", "--config", f"{folder}/config.yaml"],
        "index": ["data", "index", "tars", "--config", f"{folder}/config.yaml"],
        "verify": ["data", "verify", "shards", "--config", f"{folder}/config.yaml"],
        "show": ["data", "show", "shards", "--config", f"{folder}/config.yaml"],
    }


@pytest.mark.parametrize(
    "command",
    ["eval", "fork", "attention", "export", "plan", "train", "chaos", "build", "index", "verify", "show"],
)
def test_a_command_that_opens_a_run_executes_its_plugins_only_where_it_is_told_to(
    run: RunFolder, tmp_path: Path, command: str
) -> None:
    copy_of(run).write_text("raise SystemExit('was run')")
    words = words_of(run, tmp_path)[command]
    with pytest.raises(ValueError, match="then say --trust-code"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    with pytest.raises(ValueError, match=r"lines\.py:1: .*was run"):
        CliRunner().invoke(app, [*words, "--trust-code"], catch_exceptions=False)


def test_a_look_at_a_run_executes_nothing_of_it(run: RunFolder) -> None:
    copy_of(run).write_text("raise SystemExit('was run')")
    assert status.read(run)["steps"] == 600
    for words in (["report", str(run.path)], ["diff", str(run.path), str(run.path)], ["status", str(run.path)]):
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
