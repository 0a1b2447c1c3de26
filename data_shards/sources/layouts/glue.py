"""GLUE: a folder for each task, with train.tsv, dev.tsv and test.tsv. Each task has columns of its own."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from data_shards.building.builder import Tell
from data_shards.building.raw_sample import Literal, Row
from data_shards.building.splits import TRAIN
from data_shards.files.quoting import counted, listed, shown
from data_shards.sources.layouts.layout import TableLayout
from data_shards.sources.parsing import numbers, plain_text
from data_shards.sources.parsing.cells import refuse_twice
from data_shards.sources.parsing.folder_files import passed_over, paths_below, tell_passed_over
from data_shards.sources.table import Table

SPLITS = {
    "train.tsv": TRAIN,
    "dev.tsv": "dev",
    # As dev of the other tasks, so that all are evaluated together.
    "dev_matched.tsv": "dev",
    "dev_mismatched.tsv": "dev_mismatched",
}


@dataclass(frozen=True)
class Task:
    """The columns of a task."""

    sentences: tuple[str, ...]
    label: str
    classes: Mapping[str, str] = field(default_factory=dict)
    """The name of the class of each cell; none where the label is a number to be answered."""
    columns: tuple[str, ...] = ()
    """The columns of files without a line that names them."""


_ENTAILMENT = {name: name for name in ("entailment", "not_entailment")}
TASKS = {
    # Its files alone have no line with the names of the columns.
    "cola": Task(
        ("sentence",), "label", {"0": "unacceptable", "1": "acceptable"}, ("source", "label", "star", "sentence")
    ),
    "sst2": Task(("sentence",), "label", {"0": "negative", "1": "positive"}),
    "mrpc": Task(("#1 String", "#2 String"), "Quality", {"0": "not_equivalent", "1": "equivalent"}),
    "qqp": Task(("question1", "question2"), "is_duplicate", {"0": "not_duplicate", "1": "duplicate"}),
    # Without classes: a score is a number to be answered.
    "stsb": Task(("sentence1", "sentence2"), "score"),
    "mnli": Task(
        ("sentence1", "sentence2"), "gold_label", {name: name for name in ("entailment", "neutral", "contradiction")}
    ),
    "qnli": Task(("question", "sentence"), "label", _ENTAILMENT),
    "rte": Task(("sentence1", "sentence2"), "label", _ENTAILMENT),
    "wnli": Task(("sentence1", "sentence2"), "label", {"0": "not_entailment", "1": "entailment"}),
}


@dataclass(frozen=True)
class Glue(TableLayout):
    """GLUE: one task (CoLA/train.tsv and dev.tsv in FOLDER), or all tasks that are folders of FOLDER.

    A text is the sentence, or both sentences with a line's end between them; the fields first and second of the record
    have them one by one. Of one task the class is the sample's own label; of several the labels are named cola, sst2,
    mrpc, qqp, mnli, qnli, rte, wnli. STS-B's score is the value stsb. MNLI's second development set is the split
    dev_mismatched. Test files have no labels and are skipped.

    Example: perceiver data build glue glue_data/MNLI data/mnli
    """

    name: ClassVar[str] = "glue"
    task: str = field(default="", metadata={"help": f"Task of a folder of another name: {', '.join(TASKS)}."})

    def read(self, folder: Path, tell: Tell) -> Table:
        """Return a row for each line with a label."""
        folders = self._folders(folder)
        passed: Counter[str] = Counter()
        rows: list[Row] = []
        is_alone = len(folders) == 1
        used: set[Path] = set()
        for name, path in folders.items():
            for file, split in SPLITS.items():
                if (path / file).is_file():
                    used.add(path / file)
                    before = len(rows)
                    rows += _rows(path / file, name, split, before, passed, is_alone=is_alone)
                    tell(f"{name}: {split} {counted(len(rows) - before, 'sample')}")
        if passed:
            tell(passed_over(passed, "sample in a line"))
        tell_passed_over(folder, (path for path in paths_below(folder) if path not in used), "labelled file", tell)
        classes = {name: list(dict.fromkeys(TASKS[name].classes.values())) for name in folders if TASKS[name].classes}
        if is_alone:
            return Table(rows, next(iter(classes.values()), []))
        return Table(rows, [], classes)

    def _folders(self, folder: Path) -> dict[str, Path]:
        """Return the folder of each task that is there."""
        if self.task and self.task not in TASKS:
            raise ValueError(f"--task {shown(self.task)} is none of {', '.join(TASKS)}")
        if (folder / "train.tsv").is_file():
            name = self.task or _task_of(folder)
            if name is None:
                raise ValueError(f"{folder}: has no name of a task; give it with --task, one of {', '.join(TASKS)}")
            return {name: folder}
        # Archives spell the tasks in several ways: CoLA, cola, SST-2, sst2.
        below = {path: _task_of(path) for path in sorted(folder.iterdir()) if (path / "train.tsv").is_file()}
        found: dict[str, Path] = {}
        for path, name in below.items():
            if name and name in (self.task or name) and (other := found.setdefault(name, path)) is not path:
                raise ValueError(f"{folder}: {other.name} and {path.name} are both the task {name}; move one elsewhere")
        if not found:
            raise ValueError(
                f"{folder}: no train.tsv here or in a folder of a task ({', '.join(TASKS)}); it has "
                f"{listed(sorted(path.name for path in folder.iterdir())[:10]) or 'nothing'}"
            )
        return found


def _task_of(folder: Path) -> str | None:
    # Resolved: the name of "." is that of the folder which it stands for.
    name = folder.resolve().name.lower().replace("-", "").replace("_", "")
    return name if name in TASKS else None


def _rows(path: Path, name: str, split: str, before: int, passed: Counter[str], *, is_alone: bool) -> Iterator[Row]:
    task = TASKS[name]
    classes = list(dict.fromkeys(task.classes.values()))
    for number, cells in _lines(path, task, passed):
        texts = [cells[column] for column in task.sentences]
        parts = dict(zip(("first", "second"), texts, strict=False)) if len(texts) > 1 else {}
        row = Row(before, (Literal("\n".join(texts).encode(), "txt"),), fields=parts, split=split)
        answer = cells[task.label]
        if not task.classes:
            try:
                value = numbers.numbers(number, task.label, answer)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            if value:
                yield replace(row, values={name: value})
            else:
                passed[f"of {name} without a label"] += 1
                continue
        elif answer not in task.classes:
            passed[f"of {name} without a known label"] += 1
            continue
        elif is_alone:
            yield replace(row, label=classes.index(task.classes[answer]))
        else:
            yield replace(row, named_labels={name: classes.index(task.classes[answer])})
        before += 1


def _lines(path: Path, task: Task, passed: Counter[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield number and cells of each line; a line without all its cells is counted, as there are some in QQP."""
    needed = {*task.sentences, task.label}
    try:
        with plain_text.lines(path, newline="\n") as file:
            columns = list(task.columns)
            for number, line in enumerate(plain_text.bounded(file), start=1):
                # Not by csv: a quote in these files is a character as any other.
                cells = line.rstrip("\r\n").split("\t")
                if not columns:
                    _refuse_missing(needed - set(cells), cells)
                    refuse_twice([column for column in cells if column in needed], "line 1: column")
                    columns = cells
                    continue
                row = dict(zip(columns, cells, strict=False))
                if needed <= row.keys() and all(row[column].strip() for column in task.sentences):
                    yield number, row
                elif line.strip():
                    passed[f"of {path.parent.name}/{path.name} without all cells"] += 1
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_missing(columns: set[str], there: list[str]) -> None:
    if columns:
        raise ValueError(f"line 1: has no column {listed(sorted(columns))}; it has {listed(there)}")
