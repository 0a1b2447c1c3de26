"""Of other shards than a run's, each thing that its network cannot be compared with is told, and nothing else."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from configs.run import RunConfig
from data_shards.config import DataConfig
from data_shards.format.manifest import Manifest, Split, read, write
from data_shards.loading.shard_folders import Places
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.transform_config import ClipsConfig
from launch.run.trained.other_data import refuse_other
from model.config.perceiver import PerceiverConfig
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.value import ValueOutput

Door = Callable[..., list[dict[str, Any]]]
DIGITS = tuple("0123456789")
AGES = ("young", "old")
LABEL = LabelOutput(num_classes=10)


def refused(
    shards: Path, door: Door, outputs: Mapping[str, Any], known: Mapping[str, tuple[str, ...]], data: DataConfig
) -> list[str]:
    """Return what is told of the shards, without the advice behind it."""
    door("launch.run.trained.other_data.is_import", False)
    door("launch.run.trained.other_data.config_of", None)
    door("launch.run.trained.class_names.of", (known, ("a note",)))
    door("launch.run.trained.other_data._fault_of_first", "")
    config = RunConfig(data=replace(data, shards=str(shards)), model=PerceiverConfig(outputs=dict(outputs)))
    try:
        refuse_other(shards, config, "train", Places(config.data))
    except ValueError as error:
        told, _, advice = str(error).partition("; build them again ")
        assert advice.startswith("with the inputs and targets of the run; or answer them without a comparison")
        return told.removeprefix(f"{shards}: ").split("; ")
    return []


def changed(shards: Path, **changes: Any) -> Manifest:  # noqa: ANN401
    there = replace(read(shards), **changes)
    write(there, shards)
    return there


TARGETS: dict[str, tuple[dict[str, Any], dict[str, tuple[str, ...]], dict[str, Any], list[str]]] = {
    "the same classes": ({"label": LABEL}, {"": DIGITS}, {}, []),
    "an answer that needs no label comes first": (
        {"again": GridOutput(), "label": replace(LABEL, num_classes=9)},
        {"": DIGITS},
        {},
        ["its label has other classes than output label (10 there, 9 in the run)"],
    ),
    "the run's names are not known": ({"label": LABEL}, {}, {}, []),
    "numbers for names there": ({"label": LABEL}, {"": tuple("abcdefghij")}, {}, []),
    "numbers for names in the run": ({"label": LABEL}, {"": DIGITS}, {"label_names": tuple("abcdefghij")}, []),
    "as many classes, but others": (
        {"label": replace(LABEL, num_classes=3)},
        {"": ("a", "b", "c")},
        {"label_names": ("a", "d", "e")},
        ["its label has other classes than output label (only there: d, e; only in the run: b, c)"],
    ),
    "more of them": (
        {"label": replace(LABEL, num_classes=2)},
        {"": ("a", "b")},
        {"label_names": ("a", "b", "c")},
        ["its label has other classes than output label (only there: c; only in the run: none)"],
    ),
    "fewer of them": (
        {"label": replace(LABEL, num_classes=3)},
        {"": ("a", "b", "c")},
        {"label_names": ("a", "b")},
        ["its label has other classes than output label (only there: none; only in the run: c)"],
    ),
    "in another order": (
        {"label": replace(LABEL, num_classes=2)},
        {"": ("a", "b")},
        {"label_names": ("b", "a")},
        ["its label has other classes than output label (in another order: b, a there, a, b in the run)"],
    ),
    "labels by name, told in the order of the outputs' names": (
        {"old": LabelOutput(num_classes=2, target="age"), "new": LabelsOutput(num_classes=2, target="size")},
        {"age": AGES},
        {"named_labels": {"age": ("young", "ancient")}},
        [
            "has no label 'size', which output new is compared with (labels by name: age)",
            "its label 'age' has other classes than output old (only there: ancient; only in the run: old)",
        ],
    ),
    "no label by name": (
        {"old": LabelOutput(num_classes=2, target="age")},
        {"age": AGES},
        {},
        ["has no label 'age', which output old is compared with (labels by name: none)"],
    ),
    "several labels": ({"label": LABEL}, {"": DIGITS}, {"label_counts": (7,) * 10}, [
        "its samples have several labels, and output label answers one",
    ]),
    "several labels that are answered": (
        {"label": LabelsOutput(num_classes=10)},
        {"": DIGITS},
        {"label_counts": (7,) * 10},
        [],
    ),
    "as many labels as samples": ({"label": LABEL}, {"": DIGITS}, {"label_counts": (8,) * 8 + (0, 0)}, []),
    "several labels beside the one by name": (
        {"old": LabelOutput(num_classes=2, target="age")},
        {"age": AGES},
        {"label_counts": (7,) * 10, "named_labels": {"age": AGES}},
        [],
    ),
    "the values of the run": ({"size": ValueOutput(num_values=2, target="size")}, {}, {"values": {"size": 2}}, []),
    "values, told in the order of the outputs' names": (
        {
            "x": ValueOutput(num_values=2, target="size"),
            "again": GridOutput(),
            "w": ValueOutput(num_values=1, target="weight"),
        },
        {},
        {"values": {"size": 3}},
        [
            "has no value 'weight', which output w is compared with (values: size)",
            "its value 'size' has 3 numbers, and output x answers 2",
        ],
    ),
    "no values": (
        {"w": ValueOutput(num_values=1, target="weight")},
        {},
        {},
        ["has no value 'weight', which output w is compared with (values: none)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TARGETS)
def test_of_targets_all_that_is_other_is_told_and_no_more(shards: Path, door: Door, case: str) -> None:
    outputs, known, changes, told = TARGETS[case]
    if counts := changes.get("label_counts"):
        there = read(shards).splits["train"]
        # One split of several labels is enough.
        splits = {"train": Split(there.shards, counts), "other": there}
        changes = {"splits": splits} | {key: value for key, value in changes.items() if key != "label_counts"}
    changed(shards, **changes)
    assert "; ".join(refused(shards, door, outputs, known, DataConfig())) == "; ".join(told)


def test_several_labels_are_no_fault_where_the_run_reads_several(shards: Path, door: Door) -> None:
    there = read(shards).splits["train"]
    changed(shards, splits={"train": Split(there.shards, (7,) * 10)})
    assert refused(shards, door, {"label": LABEL}, {"": DIGITS}, DataConfig(multi_label=True)) == []


def test_of_inputs_those_that_no_sample_has_are_told(shards: Path, door: Door) -> None:
    inputs = {
        "sound": AudioConfig(sample_rate=8, num_samples=8),
        "depth": ArrayConfig(shape=(2,), members=("depth.npy", "d.npy")),
    }
    told = refused(shards, door, {"label": LABEL}, {"": DIGITS}, DataConfig(inputs=inputs))
    there = ".cls, .mp4, .npy, .png, .txt, .wav"
    assert told == [
        f"no sample of split 'train' has the input depth (array, .depth.npy, .d.npy), only {there}, which "
        "data.inputs.depth.members=SUFFIX would name"
    ]


class FewReadable:
    """A loader of which some samples cannot be read."""

    def __init__(self, readable: set[int]) -> None:
        self.readable, self.asked = readable, list[int]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, step: int) -> None:
        self.asked.append(step)
        if step not in self.readable:
            raise ValueError(f"sample {step} is torn")


@pytest.mark.parametrize(
    ("readable", "num_steps", "num_clips", "asked", "fault"),
    [
        ({0}, 9, 1, [0], ""),
        ({3}, 9, 1, [0, 1, 2, 3], ""),
        ({4}, 9, 1, [0, 1, 2, 3], "sample 0 is torn"),
        # A batch comes once for each clip.
        ({9}, 12, 3, [0, 3, 6, 9], ""),
        ({1, 2}, 4, 3, [0, 3], "sample 0 is torn"),
    ],
)
def test_where_none_of_the_first_samples_can_be_read_the_first_fault_is_told(
    shards: Path, door: Door, readable: set[int], num_steps: int, num_clips: int, asked: list[int], fault: str
) -> None:
    loader = FewReadable(readable)
    opened = door("data_shards.loading.streams.eval_loader", (loader, num_steps))
    door("launch.run.trained.other_data.is_import", True)
    # Nothing is known of an import's classes but by its files, which say them elsewhere.
    names = door("launch.run.trained.class_names.of", ({"": tuple("abc")}, ()))
    config = RunConfig(
        data=DataConfig(shards=str(shards), clips=ClipsConfig(num_test=num_clips), num_processes=2),
        model=PerceiverConfig(outputs={"label": LABEL}),
    )
    places = Places(config.data)
    words = (
        rf"^{shards}: the first samples of split 'train' are not what the run reads \({fault}\); build them again as"
    )
    told: AbstractContextManager[object] = pytest.raises(ValueError, match=words) if fault else nullcontext()
    with told:
        refuse_other(shards, config, "train", places)
    assert (loader.asked, names) == (asked, [])
    [call] = opened
    alone = replace(config.data, num_processes=0, num_threads=1, prefetch_batches=1)
    assert (call["config"], call["split"], call["global_batch"], call["places"]) == (alone, "train", 1, places)
