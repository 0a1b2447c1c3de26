"""What is evaluated is the split that is named or one of the usual names, and where there is none, a run says so."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.run import RunConfig, load
from data_shards.config import DataConfig
from data_shards.format import manifest
from data_shards.format.manifest import Shards, Split
from data_shards.loading import streams
from data_shards.loading.shard_folders import Places
from data_shards.sources import table
from launch.lifecycle.run_folder import RunFolder
from launch.run.creation import open_run
from launch.run.loaders import (
    EvalSplit,
    absolute,
    check_evaluation,
    eval_split,
    identity,
    label_names,
    look,
    open_eval_split,
    places_of_all,
    train_loader,
)
from launch.run.trained import evaluation
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.value import ValueOutput
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
Door = Callable[..., list[dict[str, Any]]]
Configured = Callable[..., RunConfig]


@pytest.fixture
def configured(shards: Path) -> Configured:
    """Return a configuration whose shards have these splits."""

    def configure(splits: Sequence[str], *overrides: str) -> RunConfig:
        there = manifest.read(shards)
        manifest.write(replace(there, splits=dict.fromkeys(splits, there.splits["train"])), shards)
        return load(DIGITS, [f"data.shards={shards}", *overrides])

    return configure


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train", "test", "val"], "test"),
        (["train", "val"], "val"),
        (["validation", "train"], "validation"),
        (["train", "Valid"], "Valid"),
        (["dev", "train", "TEST"], "TEST"),
        (["train", "Validation", "dev"], "Validation"),
    ],
)
def test_the_split_with_the_first_of_the_usual_names_is_evaluated(
    configured: Configured, splits: list[str], expected: str
) -> None:
    config = configured(splits, "train.evaluate_every_steps=0")
    assert eval_split(config) == (expected, f"split {expected!r} is evaluated at the end")


def test_samples_of_several_labels_are_refused_where_one_is_answered(tmp_path: Path) -> None:
    lines = [{"text": "a", "label": [0, 1]}, {"text": "b", "label": [1]}]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table.build(tmp_path / "table.jsonl", tmp_path / "shards")
    overrides = [f"data.shards={tmp_path}/shards", "model.outputs.label.num_classes=2"]
    with pytest.raises(ValueError, match=r"shards: samples have several labels, .* set data\.multi_label=true"):
        label_names(load(DIGITS, overrides))
    several = ["data.multi_label=true", "model.outputs.label.kind=labels"]
    assert label_names(load(DIGITS, [*overrides, *several])) == ("0", "1")


def test_the_split_that_is_named_is_evaluated(configured: Configured) -> None:
    splits = ["train", "test", "unseen"]
    config = configured(splits, "data.eval_split=unseen", "train.evaluate_every_steps=50")
    assert eval_split(config) == ("unseen", "split 'unseen' is evaluated every 50 steps and at the end")
    each = replace(config, train=replace(config.train, evaluate_every_steps=1))
    assert eval_split(each) == ("unseen", "split 'unseen' is evaluated every step and at the end")
    assert "which is trained on too" in eval_split(configured(splits, "data.eval_split=train"))[1]
    averaged = replace(config, ema=EmaConfig(decay=0.5, evaluate=True))
    sentence = "split 'unseen' is evaluated every 50 steps and at the end, with the moving average of the weights"
    assert eval_split(averaged) == ("unseen", sentence)


def test_a_run_that_evaluates_nothing_says_why(configured: Configured) -> None:
    split, sentence = eval_split(configured(["train", "holdout"], "train.evaluate_every_steps=10"))
    assert split == ""
    assert sentence.startswith("nothing is evaluated: ")
    assert "'train', 'holdout', and none of test, val, validation, valid, dev" in sentence
    assert "data.eval_split" in sentence
    mixed = load(DIGITS, ["data.datasets.a.shards=somewhere"])
    assert "data.shards is not set" in eval_split(mixed)[1]


def test_a_named_split_that_is_not_there_and_a_best_checkpoint_by_no_evaluation_are_refused(
    configured: Configured, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"data\.eval_split = 'val': .*has no split 'val', only 'train', 'test'"):
        open_run(configured(["train", "test"], "data.eval_split=val"), folder)
    with pytest.raises(ValueError, match=r"checkpoint\.keep_best = true, but nothing is evaluated: .*keep_best=false"):
        open_run(configured(["train"], "checkpoint.keep_best=true"), folder)
    with pytest.raises(ValueError, match=r"best_by = 'label/r2': expected one of label/accuracy, label/accuracy/a"):
        open_run(configured(["train", "test"], "checkpoint.best_by=label/r2"), folder)
    assert not folder.path.exists()


def test_eval_names_the_splits_that_there_are(configured: Configured, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(configured(["train", "holdout"]), folder)
    with pytest.raises(ValueError, match=r"'train', 'holdout', and none of .*--split"):
        evaluation.main(folder.path)
    with pytest.raises(ValueError, match=r"has no split 'val', only 'train', 'holdout'"):
        evaluation.main(folder.path, split="val")


TEXT = """
data: {inputs: {text: {modality: text, num_bytes: 12}}, lanes: 2, window: 8}
model:
  inputs: {text: {max_tokens: 12, embedding_width: 16}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 4
  latent_width: 16
  self_attend: {num_heads: 2}
train: {global_batch: 8}
"""


@pytest.fixture
def sentences(tmp_path: Path) -> RunConfig:
    """Return a configuration for 20 samples of text to train on and 5 to evaluate."""
    rows = [{"text": f"{n} times", "label": n % 3, "split": "test" if n % 5 == 0 else "train"} for n in range(25)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "sentences")
    (tmp_path / "text.yaml").write_text(TEXT)
    return load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/sentences"])


def keys_of_rank(config: RunConfig, quarantine: Path, rank: int, world_size: int, *, split: str = "") -> list[str]:
    """Return the keys of what a rank reads: of two global batches of training, or of a whole split."""
    world = World(rank, world_size, 0, torch.device("cpu"))
    if split:
        opened = open_eval_split(config, split, quarantine, world)
        loader, num_batches = opened.loader, opened.num_batches
    else:
        loader, num_batches = train_loader(config, quarantine, world), 2
    with loader:
        return [key for step in range(num_batches) for key in loader(step).keys]


def test_ranks_share_every_global_batch_and_the_whole_split_that_is_evaluated(
    sentences: RunConfig, tmp_path: Path
) -> None:
    bad = tmp_path / "quarantine.jsonl"
    alone = keys_of_rank(sentences, bad, 0, 1)
    assert len(set(alone)) == 16
    first, second = (keys_of_rank(sentences, bad, rank, 2) for rank in (0, 1))
    assert [*first[:4], *second[:4], *first[4:], *second[4:]] == alone
    assert keys_of_rank(replace(sentences, seed=1), bad, 0, 1) != alone
    tested = [keys_of_rank(sentences, bad, rank, 2, split="test") for rank in (0, 1)]
    assert sorted(key for keys in tested for key in keys if key) == sorted(
        key for key in keys_of_rank(sentences, bad, 0, 1, split="test") if key
    )
    assert len([key for keys in tested for key in keys if key]) == 5


@pytest.mark.parametrize("split", ["", "test"])
def test_a_bad_sample_is_listed_where_the_run_lists_them(sentences: RunConfig, tmp_path: Path, split: str) -> None:
    bad = tmp_path / "quarantine.jsonl"
    for shard in (tmp_path / "sentences").rglob("*.tar"):
        content = shard.read_bytes()
        for number in range(25):
            content = content.replace(f"{number} times".encode(), b"\xff" * len(f"{number} times"))
        shard.write_bytes(content)
    tolerant = replace(sentences, data=replace(sentences.data, max_bad_rate=1.0))
    with suppress(ValueError):  # where there is no good sample left
        keys_of_rank(tolerant, bad, 0, 1, split=split)
    listed = [json.loads(line) for line in bad.read_text().splitlines()]
    assert {each["split"] for each in listed} == {split or "train"}


def test_paths_of_data_are_absolute_for_a_restart_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = [
        "data.datasets.a.shards=there/a",
        "data.datasets.b.shards=https://host/b",
        "data.remote.cache_folder=c",
        "initial_weights.source=base@best",
    ]
    whole = absolute(load(DIGITS, overrides))
    mixed = whole.data
    assert whole.initial_weights.source == str(tmp_path / "base@best")
    assert (mixed.shards, mixed.remote.cache_folder) == ("", str(tmp_path / "c"))
    assert {name: part.shards for name, part in mixed.datasets.items()} == {
        "a": str(tmp_path / "there" / "a"),
        "b": "https://host/b",
    }
    single = absolute(load(DIGITS, ["data.shards=../here"])).data
    assert (single.shards, single.remote.cache_folder) == (str(tmp_path.parent / "here"), "")


def test_what_decides_the_order_of_samples_is_a_checkpoint_s_identity_and_nothing_else(
    configured: Configured,
) -> None:
    same = identity(configured(["train"]))
    assert same["global_batch"] == 64
    assert "step" not in same
    assert identity(configured(["train"], "data.num_threads=3", "train.log_every_steps=1")) == same
    assert identity(configured(["train"], "seed=1")) != same
    assert identity(configured(["train"], "train.global_batch=32")) != same
    assert identity(configured(["train"], "data.window=2")) != same


def test_a_network_that_answers_another_number_of_classes_is_refused_before_it_trains(configured: Configured) -> None:
    with pytest.raises(ValueError, match=r"has 10 classes, but model.outputs.label.num_classes = 9; set it to 10"):
        label_names(configured(["train"], "model.outputs.label.num_classes=9"))
    assert label_names(configured(["train"])) == tuple("0123456789")


@pytest.mark.parametrize(("device", "is_pinned"), [("cpu", False), ("cuda", True)])
def test_a_loader_is_that_of_the_rank_and_its_batches_are_pinned_for_a_gpu(
    configured: Configured, door: Door, device: str, is_pinned: bool
) -> None:
    config, world = (
        configured(["train", "test"], "seed=7", "train.global_batch=32"),
        World(1, 4, 1, torch.device(device)),
    )
    bad, places = Path("bad.jsonl"), Places(DataConfig())
    trained, evaluated = (
        door("data_shards.loading.streams.train_loader", "a"),
        door("data_shards.loading.streams.eval_loader", ("b", 9)),
    )
    common = {"config": config.data, "global_batch": 32, "rank": 1, "world_size": 4, "pinned": is_pinned,
              "quarantine": bad, "places": places}  # fmt: skip
    assert train_loader(config, bad, world, places) == "a"
    assert trained == [common | {"seed": 7}]
    assert open_eval_split(config, "val", bad, world, places) == EvalSplit("val", "b", 9)
    assert evaluated == [common | {"split": "val"}]


def test_every_further_label_is_answered_in_as_many_classes_as_the_shards_have(
    configured: Configured, door: Door
) -> None:
    config = configured(["train"])
    named = {name: LabelOutput(num_classes=n, target=name) for name, n in (("colour", 3), ("size", 2))}
    outputs = config.model.outputs | named
    config = replace(config, model=replace(config.model, outputs=outputs))
    door("data_shards.loading.streams.named_classes", {"colour": 3, "size": 2})
    assert label_names(config) == tuple("0123456789")
    door("data_shards.loading.streams.named_classes", {"colour": 3, "size": 5})
    with pytest.raises(ValueError, match=r"has 5 classes, but model.outputs.size.num_classes = 2; set it to 5"):
        label_names(config)
    # The first one by its name is told.
    turned = dict(sorted(config.model.outputs.items(), reverse=True))
    door("data_shards.loading.streams.named_classes", {"colour": 4, "size": 5})
    with pytest.raises(ValueError, match=r"model.outputs.colour.num_classes = 3; set it to 4"):
        label_names(replace(config, model=replace(config.model, outputs=turned)))
    # A network that draws its input again answers no class.
    door("data_shards.loading.streams.named_classes", {})
    outputs = {"image": GridOutput()}
    assert label_names(replace(config, model=replace(config.model, outputs=outputs))) == tuple("0123456789")


def test_all_that_a_run_reads_is_looked_at(configured: Configured, shards: Path) -> None:
    config = configured(["train", "test"], "data.require=[audio]")
    look(config, Places(config.data))
    there = manifest.read(shards)
    [whole] = there.splits["train"].shards
    mute = Split(Shards.of([replace(whole, kinds={"cls/png": 64})]), (6,) * 10)
    manifest.write(replace(there, splits={"train": there.splits["train"], "holdout": mute}), shards)
    look(config, Places(config.data))
    manifest.write(replace(there, splits={"train": there.splits["train"], "test": mute}), shards)
    with pytest.raises(ValueError, match="audio"):
        look(config, Places(config.data))
    manifest.write(replace(there, splits={"train": mute, "holdout": there.splits["train"]}), shards)
    with pytest.raises(ValueError, match="audio"):
        look(config, Places(config.data))


def test_a_label_that_is_read_has_the_classes_of_the_shards(configured: Configured) -> None:
    given = ["data.inputs.label.modality=label", "model.inputs.label={}", "model.mask_tokens=true"]
    assert len(label_names(configured(["train"], *given, "data.inputs.label.num_classes=10"))) == 10
    with pytest.raises(ValueError, match=r"has 10 classes, but data\.inputs\.label\.num_classes = 11; set it to 10"):
        label_names(configured(["train"], *given, "data.inputs.label.num_classes=11"))
    # Of a further label the samples themselves say it.
    further = ["data.inputs.label.num_classes=11", "data.inputs.label.members=[colour.cls]"]
    assert len(label_names(configured(["train"], *given, *further))) == 10


def with_outputs(config: RunConfig, **outputs: Any) -> RunConfig:  # noqa: ANN401  # of any kind
    return replace(config, model=replace(config.model, outputs=outputs))


def test_several_labels_are_refused_for_the_one_that_is_answered_alone(configured: Configured, door: Door) -> None:
    config = configured(["train"])
    door("data_shards.loading.streams.with_several_labels", ["shards/train"])
    door("data_shards.loading.streams.named_classes", {"colour": 3})
    with pytest.raises(ValueError, match=r"set data\.multi_label=true and model\.outputs\.mine\.kind=labels"):
        label_names(with_outputs(config, mine=LabelOutput(num_classes=10)))
    for output in (LabelsOutput(num_classes=10), LabelOutput(num_classes=3, target="colour")):
        assert len(label_names(with_outputs(config, mine=output))) == 10


def test_a_value_is_answered_in_as_many_numbers_as_the_shards_have(configured: Configured, door: Door) -> None:
    config = configured(["train"])
    door("data_shards.loading.streams.num_values", {"size": 3})
    there = with_outputs(config, size=ValueOutput(num_values=3, target="size"), again=GridOutput())
    assert len(label_names(there)) == 10
    other = with_outputs(config, size=ValueOutput(num_values=2, target="size"))
    told = r"value 'size' has 3 numbers, but model\.outputs\.size\.num_values = 2; set it to 3"
    with pytest.raises(ValueError, match=told):
        label_names(other)


def test_a_measurement_is_asked_for_where_something_is_evaluated(configured: Configured, door: Door) -> None:
    asked = door("launch.run.loaders.check_measurements", None)
    for splits, times in ((["train"], 0), (["train", "test"], 1)):
        asked.clear()
        check_evaluation(configured(splits, "checkpoint.keep_best=false"))
        assert len(asked) == times


def test_what_is_known_of_the_shards_is_not_looked_up_again_for_the_identity(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked, state = configured(["train"]), list[object](), streams.data_state
    places = Places(config.data)

    def noted(*words: Any, **named: Any) -> object:  # noqa: ANN401  # handed on
        asked.append(named["places"])
        return state(*words, **named)

    monkeypatch.setattr(streams, "data_state", noted)
    identity(config, places)
    assert asked == [places]


@pytest.mark.parametrize(("rank", "is_first_here", "checks"), [(0, True, 0), (1, True, 1), (1, False, 0)])
def test_the_first_rank_looks_at_the_shards_and_one_rank_of_each_other_host_checks_them(
    configured: Configured, door: Door, monkeypatch: pytest.MonkeyPatch, rank: int, *, is_first_here: bool, checks: int
) -> None:
    config, told = configured(["train"]), list[object]()

    class Told(World):
        """A rank without the others, which is told what the first one found."""

        def broadcast(self, item: Any) -> Any:  # noqa: ANN401  # of any type
            told.append(item)
            return found

    place: Any = SimpleNamespace(found=True)
    found = {"shards": place}
    looked, checked = list[object](), list[Places]()
    door("launch.run.loaders.is_first_of_host", is_first_here)
    monkeypatch.setattr(Places, "check_here", lambda places: checked.append(places))
    monkeypatch.setattr(Places, "found", property(lambda _: found))
    places = Places(config.data)
    known = places_of_all(config, Told(rank, 1, 0, torch.device("cpu")), places, looked.append)
    assert (known is places, looked) == (rank == 0, [places] if rank == 0 else [])
    assert told == [found if rank == 0 else {}]
    assert rank == 0 or known._told == found
    assert checked == [known] * checks
