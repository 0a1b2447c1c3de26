"""A plug-in's class that does not agree with ours is refused with its line: when it is read, or when it is called."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from configs import plugins
from data_shards.config import DataConfig
from data_shards.files import plugin_files
from data_shards.files.plugin_files import PluginError
from data_shards.format.annotations import OWN as OWN_RECORDS
from data_shards.loading.admission import Intake
from data_shards.loading.batch import Batch
from data_shards.loading.sample import prepare
from trainer.distributed.world import World
from trainer.evaluation.evaluation import check_measurements, evaluate
from trainer.tasks.answer import Telling
from trainer.tasks.objective import Objective, objective

HEAD = """
from dataclasses import dataclass, replace
from typing import ClassVar, Literal
import numpy as np
from perceiver_trainer import *


"""
MODALITY = """
@dataclass(frozen=True)
class Mine(TextConfig):
    modality: Literal["mine"] = "mine"
{}

@dataclass(frozen=True)
class MineInput(TextInput):
    modality: Literal["mine"] = "mine"
"""
TASK = """
@dataclass(frozen=True, kw_only=True)
class MineOutput(LabelOutput):
    kind: Literal["mine"] = "mine"
{}

@dataclass(frozen=True)
class MineTask(LabelTask):
    kind: ClassVar[str] = "mine"
{}
"""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No plug-in outlives its test."""
    yield
    plugins.use(())
    for name in [name for name in sys.modules if name.startswith("perceiver_plugins.")]:
        del sys.modules[name]


def used(folder: Path, text: str) -> Any:  # noqa: ANN401  # a module
    (folder / "mine.py").write_text(HEAD + text)
    plugins.use([folder / "mine.py"])
    return plugin_files.run(folder / "mine.py")


def body(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def refused(folder: Path, line: int, sentence: str, call: Callable[[], object]) -> None:
    with pytest.raises(PluginError, match=rf"^{folder}/mine\.py:{line}: {sentence}") as refusal:
        call()
    assert len(str(refusal.value).splitlines()) == 1


AT_ONCE = {
    "too few parameters": (
        "def prepare(self, found):\n    pass",
        12,
        r"Mine\.prepare is called as prepare\(found, rng\): too many positional arguments",
    ),
    "too many": ("def prepare(self, found, rng, more):\n    pass", 12, r"Mine\.prepare is called as .*'more'"),
    "no property": ("def shape(self):\n    return (64,)", 12, r"Mine\.shape is a method; write @property above it"),
    "a property": ("@property\ndef prepare(self):\n    pass", 12, r"Mine\.prepare is no method, but is called as"),
    "no static method": ("def draw(self, axes):\n    pass", 12, r"Mine\.draw has no self; write @staticmethod above"),
    "a value": ("prepare = 3", 9, r"Mine\.prepare is no method, but is called as prepare\(found, rng\)"),
    "a type that is none": ("dtype: ClassVar[str] = 'float99'", 9, r"Mine\.dtype is 'float99', expected one of bool,"),
    "a type of numpy": ("dtype: ClassVar[type] = np.int16", 9, r"Mine\.dtype is .*expected the name of a type, such"),
}


@pytest.mark.parametrize("fault", AT_ONCE)
def test_a_method_with_other_parameters_is_refused_when_the_plugin_is_read(tmp_path: Path, fault: str) -> None:
    text, line, sentence = AT_ONCE[fault]
    refused(tmp_path, line, sentence, lambda: used(tmp_path, MODALITY.format(body(text))))


SAID = {
    "shape": ("[64]", "a tuple of whole numbers, the length of each axis"),
    "sizes": ("None", "a dict of the sizes"),
    "roles": ("['txt']", "a dict of tuples of patterns"),
    "target": ("(64,)", "None, or shape and dtype"),
}


@pytest.mark.parametrize("name", SAID)
def test_a_property_of_another_type_is_told_where_it_is_asked(tmp_path: Path, name: str) -> None:
    found, expected = SAID[name]
    module = used(tmp_path, MODALITY.format(body(f"@property\ndef {name}(self):\n    return {found}")))
    refused(tmp_path, 12, rf"Mine\.{name} returned .*, expected {expected}", lambda: getattr(module.Mine(), name))


def test_what_a_section_says_is_wrong_comes_in_pairs(tmp_path: Path) -> None:
    for number, text in enumerate(("return None", "yield 'wrong'", "yield 'num_bytes', 'is wrong'")):
        folder = tmp_path / str(number)
        folder.mkdir()
        module = used(folder, MODALITY.format(body(f"def problems(self):\n    {text}")))
        if number < 2:
            refused(folder, 12, r"Mine\.problems returned .*, expected pairs of a key", module.Mine().problems)
        else:
            assert list(module.Mine().problems()) == [("num_bytes", "is wrong")]


FIRST = "def prepare(self, found, rng):\n    first = super().prepare(found, rng)\n    "
PREPARED = {
    "an array": ("return first.array", r"Mine\.prepare returned array\(\[.*, expected Prepared\(array, length\)"),
    "nothing": ("", r"Mine\.prepare returned None, expected Prepared"),
    "a list": (
        "return replace(first, array=[1])",
        r"Mine\.prepare made an array of list \[\], its .* say int16 \[64\]",
    ),
    "no length": ("return replace(first, length=None)", r"Mine\.prepare made the length None, expected 0 to 64"),
    "a target": (
        "return replace(first, target=first.array)",
        r"Mine\.prepare made a target of int16 \[64\], its target says none",
    ),
}


@pytest.mark.parametrize("fault", PREPARED)
def test_a_sample_that_is_something_else_is_a_fault_of_the_plugin(tmp_path: Path, fault: str) -> None:
    text, sentence = PREPARED[fault]
    module = used(tmp_path, MODALITY.format(body(FIRST + text)))
    config = DataConfig(inputs={"text": module.Mine()})
    refused(tmp_path, 12, sentence, lambda: prepare({"txt": b"words"}, config))


def test_a_plugin_that_exits_in_a_sample_ends_no_run_in_silence(tmp_path: Path) -> None:
    module = used(tmp_path, MODALITY.format(body(FIRST + "raise SystemExit(0)")))
    config = DataConfig(inputs={"text": module.Mine()})
    refused(tmp_path, 14, "in prepare, SystemExit: 0; ", lambda: prepare({"txt": b"words"}, config))


class OneSample:
    """A reader of one sample."""

    def __init__(self, shard: str) -> None:
        self._shard = shard

    def sample(self, shard: int, sample: int) -> tuple[str, dict[str, bytes]]:
        return "0012", {"txt": b"words"}

    def name(self, shard: int) -> str:
        return self._shard


@pytest.mark.parametrize(("shard", "named"), [("a.tar", "in sample 0012 of a.tar"), ("", "in sample 0012")])
def test_an_error_in_a_sample_names_the_sample(tmp_path: Path, shard: str, named: str) -> None:
    module = used(tmp_path, MODALITY.format(body(FIRST + "return {}['mask']")))
    intake = Intake(DataConfig(inputs={"text": module.Mine()}), OWN_RECORDS, 2, {})
    reader: Any = OneSample(shard)  # all of it that is asked for
    refused(tmp_path, 14, f"in prepare, KeyError: 'mask'; .*; {named}$", lambda: intake.sample(reader, 0, 0))


def judged(module: Any) -> tuple[Objective, Any, torch.nn.Module]:  # noqa: ANN401  # a module
    """Return the objective of a plug-in's task, a batch of three samples, and a network for them."""
    batch = Batch(
        arrays={"text": torch.zeros(3, 4)},
        lengths={"text": torch.full((3,), 4)},
        labels=torch.tensor([0, 1, 0]),
        weights=torch.ones(3),
        keys=("a", "b", "c"),
    )

    class Network(torch.nn.Linear):
        def forward(self, arrays: dict[str, torch.Tensor], lengths: object) -> dict[str, torch.Tensor]:
            return {"label": super().forward(arrays["text"])}

    return objective({"label": module.MineOutput(num_classes=2)}), batch, Network(4, 2)


SUMS = {
    "a number of Python": ("return 1.0", r"MineTask\.sum returned float, expected a tensor of one floating point"),
    "a sum a sample": ("return answer.sum(dim=1)", r"MineTask\.sum returned torch\.float32 \[3\], expected a tensor"),
    "a whole number": ("return answer.sum().long()", r"MineTask\.sum returned torch\.int64 \[\], expected a tensor of"),
    "no gradient": ("return answer.sum().detach()", r"MineTask\.sum returned a number without gradient"),
}


@pytest.mark.parametrize("fault", SUMS)
def test_a_loss_that_cannot_be_learned_from_is_told_with_its_line(tmp_path: Path, fault: str) -> None:
    text, sentence = SUMS[fault]
    goal, batch, network = judged(used(tmp_path, TASK.format("", body(f"def sum(self, answer, batch):\n    {text}"))))
    refused(tmp_path, 17, sentence, lambda: goal.sums(network, batch))


def test_an_error_in_a_loss_has_its_line_and_the_shape_of_the_answer(tmp_path: Path) -> None:
    text = "def sum(self, answer, batch):\n    raise ValueError('no')"
    goal, batch, network = judged(used(tmp_path, TASK.format("", body(text))))
    told = r"in sum, ValueError: no; the answer is torch\.float32 \[3, 2\]"
    refused(tmp_path, 18, told, lambda: goal.sums(network, batch))
    # In our own code, by an answer that a task of ours cannot take.
    goal, batch, network = judged(used(tmp_path, TASK.format("", "")))
    network.forward = lambda arrays, lengths: {"label": arrays["text"][:2, :2]}  # type: ignore[method-assign]  # noqa: ARG005
    refused(
        tmp_path,
        14,
        r"MineTask\.sum fails \(.*; the answer is torch\.float32 \[2, 2\]",
        lambda: goal.sums(network, batch),
    )


MEASURED = {
    "metrics": ("def metrics(self):\n    return ()", r"MineTask\.metrics returned \(\), expected a tuple of Metric"),
    "measurement": ("def measurement(self):\n    pass", r"MineTask\.measurement returned None, expected a Measurement"),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_task_without_metrics_or_their_measurement_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    text, sentence = MEASURED[name]
    goal, batch, network = judged(used(tmp_path, TASK.format("", body(text))))
    alone = World(0, 1, 0, torch.device("cpu"))
    refused(tmp_path, 17, sentence, lambda: evaluate(network, goal, [batch], alone, ("text",)))


BEFORE_THE_FIRST_STEP = {
    "a wrong keyword": (
        "def metrics(self):\n    return (Metric('mine', best=1),)",
        18,
        "in metrics, TypeError: .*best",
    ),
    "a list": (
        "def metrics(self):\n    return [Metric('mine')]",
        17,
        r"MineTask\.metrics returned \[.*a tuple of Metric",
    ),
    "an error": ("def measurement(self):\n    return self.nothing", 18, "in measurement, AttributeError: .*nothing"),
}


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_STEP)
def test_metrics_and_measurement_are_made_before_the_first_step(tmp_path: Path, fault: str) -> None:
    text, line, sentence = BEFORE_THE_FIRST_STEP[fault]
    goal, _, _ = judged(used(tmp_path, TASK.format("", body(text))))
    refused(tmp_path, line, sentence, lambda: check_measurements(goal))


ROWS = """def rows(self, answer, batch, telling):
    return [{{"mine": {}}} for _ in batch.keys]"""


def rows_of(folder: Path, cell: str) -> object:
    """Return the rows of a plug-in that has this cell in each."""
    goal, batch, _ = judged(used(folder, TASK.format("", body(ROWS.format(cell)))))
    return goal.tasks["label"].rows(torch.zeros(3, 2), batch, Telling())


@pytest.mark.parametrize("cell", ["answer[0, 0]", "np.float32(1)", "[1, [answer[0]]]"])
def test_a_cell_that_no_table_holds_is_told_with_the_line_of_its_rows(tmp_path: Path, cell: str) -> None:
    refused(tmp_path, 17, r"MineTask\.rows returned .*, expected a list with a dict", lambda: rows_of(tmp_path, cell))


@pytest.mark.parametrize("cell", ["['x', 1, 2.0, None, [True]]", "answer[0, 0].item()", "np.float64(1)"])
def test_a_cell_that_a_table_holds_is_taken(tmp_path: Path, cell: str) -> None:
    rows = rows_of(tmp_path, cell)
    assert isinstance(rows, list)
    assert len(rows) == 3


OWN = """def metrics(self):
    return (Metric("mine"),)
def measurement(self):
    class Own(Measurement):
        def add(self, answer, batch, judged):
            pass
        def result(self, world):
            return {}
    return Own()"""


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ('{"mine": 1.0}', "dict"),
        ('Result({"other": 1.0}, 3)', r"\{'other': 1\.0\}"),
        ('Result({"mine": "good"}, 3)', r"\{'mine': 'good'\}"),
    ],
)
def test_a_result_without_a_number_for_each_metric_is_told_with_its_line(
    tmp_path: Path, returned: str, told: str
) -> None:
    goal, batch, network = judged(used(tmp_path, TASK.format("", body(OWN.replace("{}", returned)))))
    alone = World(0, 1, 0, torch.device("cpu"))
    sentence = rf"Own\.result returned {told}, expected a Result with a number for each of mine"
    refused(tmp_path, 23, sentence, lambda: evaluate(network, goal, [batch], alone, ("text",)))
    # Before the first step, too, of nothing.
    refused(tmp_path, 23, sentence, lambda: check_measurements(goal))


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ('Result({"mine": 1.0}, None)', r"returned num_judged = None, expected a number; int\(\) makes one"),
        ('Result({"mine": 1.0}, np.array(3))', r"returned num_judged = array\(3\), expected a number"),
        (
            'Result({"mine": 1.0}, 3, {"per": np.zeros(3)})',
            r"returned the table per as ndarray, expected a list; tolist\(\) makes one",
        ),
    ],
)
def test_a_result_that_no_file_could_hold_is_told_before_the_first_step(
    tmp_path: Path, returned: str, sentence: str
) -> None:
    goal, _, _ = judged(used(tmp_path, TASK.format("", body(OWN.replace("{}", returned)))))
    refused(tmp_path, 23, rf"Own\.result {sentence}", lambda: check_measurements(goal))


def test_two_metrics_of_one_name_are_told(tmp_path: Path) -> None:
    text = 'def metrics(self):\n    return (Metric("mine"), Metric("mine", "%"))'
    goal, _, _ = judged(used(tmp_path, TASK.format("", body(text))))
    refused(
        tmp_path, 17, r"MineTask\.metrics returned .*, expected a tuple of Metric", lambda: check_measurements(goal)
    )


def test_a_measurement_that_has_no_result_of_nothing_is_no_fault(tmp_path: Path) -> None:
    goal, _, _ = judged(used(tmp_path, TASK.format("", body(OWN.replace("{}", 'Result({"mine": 1 / 0}, 0)')))))
    check_measurements(goal)


def test_a_metric_that_the_measurement_of_ours_does_not_know_is_told_where_it_is_listed(tmp_path: Path) -> None:
    text = 'def metrics(self):\n    return (Metric("other"),)'
    goal, batch, network = judged(used(tmp_path, TASK.format("", body(text))))
    alone = World(0, 1, 0, torch.device("cpu"))
    sentence = r"\w+\.result returned \{.*\}, expected a Result with a number for each of other"
    refused(tmp_path, 17, sentence, lambda: evaluate(network, goal, [batch], alone, ("text",)))


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("head", (8, None, None), "a module of PyTorch"),
        ("head_cost", (8, 1, None), "a Cost"),
        ("wanted", (), "a tuple of pairs"),
        ("named", ("label", None), "an output such as itself"),
    ],
)
def test_an_output_that_returns_nothing_is_told_with_its_line(
    tmp_path: Path, name: str, given: tuple[object, ...], expected: str
) -> None:
    parameters = {
        "head": "width, network, embedding",
        "head_cost": "width, num_asked, network",
        "named": "name, network",
    }
    text = f"def {name}(self, {parameters.get(name, '')}):\n    pass"
    module = used(tmp_path, TASK.format(body(text), ""))
    call = getattr(module.MineOutput(num_classes=2), name)
    refused(tmp_path, 12, rf"MineOutput\.{name} returned None, expected {expected}", lambda: call(*given))


def test_the_examples_agree_with_ours_and_are_held_to_it_once() -> None:
    files = sorted((Path(__file__).parents[2] / "examples" / "plugins").glob("*.py"))
    for _ in range(2):
        plugins.use(files)
    module = plugin_files.run(files[[file.stem for file in files].index("eeg")])
    assert module.Eeg().shape == (256, 8)
    assert not hasattr(module.Eeg.prepare.__wrapped__, "__wrapped__")
