"""Plug-ins: found, run and checked when a configuration is read; those of a run only where it is trusted."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from configs import plugins
from configs.run import load
from data_shards.files import plugin_files
from data_shards.files.plugin_files import PluginError
from data_shards.loading.batch import Batch
from model.outputs.kinds import KINDS as OUTPUTS_BY_KIND
from trainer.distributed.world import World
from trainer.sinks.sink import RunSink
from trainer.tasks.answer import Telling
from trainer.tasks.kinds.catalogue import BY_KIND
from trainer.tasks.task import Training

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
SINK = """
from perceiver_trainer import RunSink

class Lines(RunSink):
    def write(self, kind, record):
        (self.run / "lines.txt").open("a").write(kind)
"""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No plug-in outlives its test."""
    yield
    plugins.use(())
    plugins._trusted.clear()
    for name in [name for name in sys.modules if name.startswith("perceiver_plugins.")]:
        del sys.modules[name]


def config(folder: Path, names: str = "[lines.py]") -> Path:
    (folder / "run.yaml").write_text(f"plugins: {names}\n" + CONFIG.read_text())
    return folder / "run.yaml"


def sinks() -> list[str]:
    return [kind.__name__ for kind in plugins.of_kind(RunSink)]  # type: ignore[type-abstract]


def test_a_file_beside_the_configuration_is_run_and_its_classes_are_found(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(SINK)
    assert load(config(tmp_path)).plugins == (str(tmp_path / "lines.py"),)
    assert sinks() == ["Lines"]


def test_a_file_in_the_working_directory_is_found_and_one_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "lines.py").write_text(SINK)
    monkeypatch.chdir(tmp_path)
    path = config(tmp_path / "there")
    assert load(path).plugins == (str(tmp_path / "lines.py"),)
    assert load(path, [f"plugins=[{tmp_path}/lines.py]"]).plugins == (str(tmp_path / "lines.py"),)


def test_a_key_takes_the_place_of_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(SINK)
    (tmp_path / "other.py").write_text(SINK.replace("Lines", "Other"))
    load(config(tmp_path), ["plugins=[other.py]"])
    assert sinks() == ["Other"]
    assert load(config(tmp_path), ["plugins=[]"]).plugins == ()
    assert sinks() == []


def test_the_plugins_are_those_of_the_configuration_that_was_read_last(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(SINK)
    load(config(tmp_path))
    load(CONFIG)
    assert sinks() == []


def test_an_edited_file_is_run_anew_and_an_equal_one_is_not(tmp_path: Path) -> None:
    path = config(tmp_path)
    (tmp_path / "lines.py").write_text(SINK)
    load(path)
    first = plugins.of_kind(RunSink)  # type: ignore[type-abstract]
    load(path)
    assert plugins.of_kind(RunSink) == first  # type: ignore[type-abstract]
    (tmp_path / "lines.py").write_text(SINK.replace("Lines", "Rows"))
    load(path)
    assert sinks() == ["Rows"]


FAULTS = {
    "syntax": ("x = (\n", r"lines\.py:1: SyntaxError: '\(' was never closed"),
    "exception": ("\n\nx = 1 / 0\n", r"lines\.py:3: in <module>, ZeroDivisionError: division by zero"),
    "in a function": ("def f():\n    raise KeyError('a')\n\nf()\n", r"lines\.py:2: in f, KeyError: 'a'"),
    "elsewhere": ("import json\n\njson.loads('{')\n", r"lines\.py:3: in <module>, JSONDecodeError: Expecting"),
    "import": ("import no_such_library\n", r"lines\.py:1: in <module>, ModuleNotFoundError: No module named 'no_such"),
    "exit": ("import sys\nsys.exit(3)\n", r"lines\.py:2: in <module>, SystemExit: 3"),
    "nothing": ("x = 1\n", r"lines\.py: has no class that is one of .*RunSink"),
    "missing method": (
        "from perceiver_trainer import RunSink\n\nclass Lines(RunSink):\n    pass\n",
        r"lines\.py:3: Lines lacks write",
    ),
    "bytes": ("x = '\\udcff'\n\0", r"lines\.py.*null bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_with_its_file_and_line(tmp_path: Path, fault: str) -> None:
    text, sentence = FAULTS[fault]
    (tmp_path / "lines.py").write_text(text)
    with pytest.raises(PluginError, match=rf"^{tmp_path}/{sentence}") as refusal:
        load(config(tmp_path))
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["my_helper.py", "my_helper/__init__.py"])
def test_a_module_beside_a_plugin_is_refused_whether_python_finds_it_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    beside = tmp_path / place
    beside.parent.mkdir(exist_ok=True)
    beside.write_text("x = 1\n")
    (tmp_path / "lines.py").write_text(f"import my_helper\n{SINK}")
    for _ in range(2):
        with pytest.raises(PluginError, match=r"lines\.py:1: .*No module named 'my_helper'; a plug-in is one file"):
            load(config(tmp_path))
    # As `python -m launch` finds what is in the working directory.
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(PluginError, match=rf"lines\.py: imports my_helper from {beside}, of which a run keeps no"):
            load(config(tmp_path))
    assert "my_helper" not in sys.modules


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("[none.py]", r"plugins: none\.py: no such file, neither .*/none\.py nor .*/none\.py"),
        ("lines.py", r"plugins: expected a list of Python files, such as \[my_eeg\.py\], got 'lines\.py'"),
        ("[3]", r"plugins: expected a list of Python files"),
        ("[lines.txt]", r"lines\.txt: expected a Python file whose name can be imported"),
        ("[my-lines.py]", r"my-lines\.py: expected a Python file whose name can be imported"),
        ("[lines.py, there/lines.py]", r"plugins: two files are named lines\.py; a run keeps them by their names"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(tmp_path: Path, names: str, sentence: str) -> None:
    (tmp_path / "there").mkdir()
    for name in ("lines.py", "lines.txt", "my-lines.py", "there/lines.py"):
        (tmp_path / name).write_text(SINK)
    with pytest.raises(PluginError, match=sentence):
        load(config(tmp_path, names))


def test_the_plugins_of_a_run_are_run_only_where_it_is_trusted(tmp_path: Path) -> None:
    copies = tmp_path / "code" / "plugins"
    copies.mkdir(parents=True)
    (copies / "lines.py").write_text(f"{SINK}\nraise SystemExit('was run')\n")
    kept = config(tmp_path, "[code/plugins/lines.py]").rename(tmp_path / "config.yaml")
    with pytest.raises(
        ValueError, match=rf"has plug-ins, .*{copies}/lines\.py; read them, then say --trust-code"
    ) as told:
        load(kept)
    assert "was run" not in str(told.value)
    plugins.trust(tmp_path)
    with pytest.raises(PluginError, match="was run"):
        load(kept)


def test_a_fault_is_found_under_what_it_led_to(tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text("def f():\n    raise TypeError('x')\n")
    module = plugin_files.run(tmp_path / "lines.py")
    with pytest.raises(TypeError) as raised:
        module.f()
    assert plugin_files.fault_in(raised.value) == f"{tmp_path}/lines.py:2: in f, TypeError: x"
    assert plugin_files.fault_in(ValueError("of ours")) == ""


EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
IMAGE = """
from dataclasses import dataclass
from typing import ClassVar, Literal
from perceiver_trainer import ImageConfig, LabelOutput, LabelTask, Modality

"""
KINDS = {
    "no dataclass": (
        'class Mine(ImageConfig):\n    modality: Literal["mine"] = "mine"\n',
        r"lines\.py:6: Mine is no dataclass; write @dataclass\(frozen=True\) above it",
    ),
    "a name of ours": (
        "@dataclass(frozen=True)\nclass Mine(ImageConfig):\n    pass\n",
        r"lines\.py:6: modality 'image' is there already; give Mine another name",
    ),
    "no name": (
        "@dataclass(frozen=True)\nclass Mine(ImageConfig):\n    modality: str = ''\n",
        r"lines\.py:6: Mine needs a name of its own, such as modality: Literal\[\"mine\"\] = \"mine\"",
    ),
    "no methods": (
        '@dataclass(frozen=True)\nclass Mine(Modality):\n    modality: Literal["mine"] = "mine"\n',
        r"lines\.py:6: Mine lacks decoded_shape, draw, prepare, shape",
    ),
    "a modality without tokens": (
        '@dataclass(frozen=True)\nclass Mine(ImageConfig):\n    modality: Literal["mine"] = "mine"\n',
        r"lines\.py:6: a modality 'mine' needs an Input with modality = 'mine', its tokens",
    ),
    "an answer without a loss": (
        '@dataclass(frozen=True, kw_only=True)\nclass Mine(LabelOutput):\n    kind: Literal["mine"] = "mine"\n',
        r"lines\.py:6: an answer of kind 'mine' needs a Task with kind = 'mine', its loss",
    ),
    "a loss without an answer": (
        '@dataclass(frozen=True)\nclass Mine(LabelTask):\n    kind: ClassVar[str] = "mine"\n',
        r"lines\.py:6: a task of kind 'mine' needs an Output with kind = 'mine', its answer",
    ),
}


@pytest.mark.parametrize("fault", KINDS)
def test_a_class_that_cannot_be_chosen_is_named_with_its_line(tmp_path: Path, fault: str) -> None:
    text, sentence = KINDS[fault]
    (tmp_path / "lines.py").write_text(IMAGE + text)
    with pytest.raises(PluginError, match=rf"^{tmp_path}/{sentence}"):
        plugins.use([tmp_path / "lines.py"])


def test_what_a_plugin_adds_is_there_as_long_as_it_is_in_use() -> None:
    from data_shards.modalities.kinds.catalogue import BY_NAME, MODALITIES
    from model.outputs.kinds import OUTPUTS
    from trainer.tasks.kinds.catalogue import TASKS

    plugins.use([EXAMPLES / "noise.py", EXAMPLES / "focal.py"])
    assert BY_NAME["noisy_image"].__name__ == "NoisyImage"
    assert (OUTPUTS_BY_KIND["focal"].__name__, BY_KIND["focal"].__name__) == ("FocalOutput", "FocalTask")
    plugins.use(())
    assert (len(BY_NAME), len(OUTPUTS_BY_KIND), len(BY_KIND)) == (len(MODALITIES), len(OUTPUTS), len(TASKS))


def test_the_example_of_an_error_metric_measures_degrees_of_known_angles_and_takes_the_least_for_the_best() -> None:
    plugins.use([EXAMPLES / "angle.py"])
    task = BY_KIND["angle"].of("heading", OUTPUTS_BY_KIND["angle"](target="heading"), Training())
    # The third sample has no angle, the fourth only pads the batch. 350 degrees are 10 degrees from 0.
    truths = torch.tensor([[350.0], [90.0], [torch.nan], [torch.nan]])
    batch = Batch(
        arrays={},
        lengths={},
        labels=torch.full((4,), -1),
        weights=torch.tensor([1.0, 1.0, 1.0, 0.0]),
        keys=("a", "b", "c", ""),
        targets={"heading": truths},
    )
    answer = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]], requires_grad=True)
    loss = task.sum(answer, batch)
    # NaN times 0 would be NaN.
    (gradient,) = torch.autograd.grad(loss, answer)
    squared = (2 - math.cos(math.radians(10))) ** 2 + math.sin(math.radians(10)) ** 2
    assert (task.count(batch).item(), loss.item()) == pytest.approx((2, squared))
    assert gradient.isfinite().all()
    assert not gradient[2:].any()
    measurement = task.measurement()
    measurement.add(answer.detach(), batch, torch.tensor([True, True, True, False]))
    found = measurement.result(World(0, 1, 0, torch.device("cpu")))
    # Degrees of single precision.
    assert found.values["angular_error"] == pytest.approx(5, abs=1e-4)
    assert found.num_judged == 2
    (metric,) = task.metrics()
    assert metric.goodness(5.0) > metric.goodness(10.0)
    assert [row["heading"] for row in task.rows(answer.detach(), batch, Telling())] == pytest.approx([0, 90, 45, 45])


def test_every_example_is_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    # A modality, its input and the module that makes its tokens.
    assert lengths.pop("reads.py") <= 100
    assert max(lengths.values()) < 60
