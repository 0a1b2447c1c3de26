"""Which keys may change when a run is resumed."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from configs import resume
from configs.run import RunConfig, difference, load

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


def keys(schema: type[Any], prefix: str = "") -> Iterator[str]:
    """Yield every key that a configuration can have, sections before what is in them."""
    types = get_type_hints(schema)
    for field in fields(schema):
        key = f"{prefix}{field.name}"
        yield key
        for part in (types[field.name], *get_args(types[field.name])):
            if is_dataclass(part):
                yield from keys(part, f"{key}.")
        for part in field.metadata.get("among", {}).values():
            yield from keys(part, f"{key}.NAME.")


def test_every_key_is_classified_once_and_every_name_is_that_of_a_key() -> None:
    known = list(keys(RunConfig))
    names = [*resume.MAY_CHANGE, *resume.DECIDES]
    assert sorted(set(names)) == sorted(names)
    assert set(names) <= set(known)
    sections = {name.rpartition(".")[0] for name in names if "." in name}
    classified = [key for key in known if any(key == name or key.startswith(f"{name}.") for name in names)]
    assert set(known) - set(classified) <= sections, "classify the new key in configs/resume.py"


def test_every_name_that_carries_over_is_that_of_a_key_of_the_network() -> None:
    assert {key.rpartition(".")[2] for key in keys(RunConfig) if key.startswith("model.")} >= resume.CARRIES_OVER


@pytest.mark.parametrize(
    "override",
    [
        "data.num_threads=3",
        "data.num_processes=1",
        "data.prefetch_mib=64",
        "data.prefetch_batches=2",
        "data.max_bad_rate=0.5",
        "data.remote.timeout_seconds=3",
        "train.log_every_steps=1",
        "train.evaluate_every_steps=7",
        "train.time_limit_minutes=3",
        "train.collective_timeout_seconds=30",
        "train.micro_batch=8",
        "checkpoint.keep_best=true",
        "checkpoint.save_every_steps=3",
        "health.hang_seconds=5",
        "health.compile_seconds=5",
        "profile.first_step=3",
        "model.activation_checkpointing=layers",
    ],
)
def test_how_a_run_is_watched_kept_fed_or_fitted_may_change(override: str) -> None:
    changes = difference(load(CONFIG), load(CONFIG, [override]))
    assert len(changes) == 1
    assert resume.deciding(changes) == []


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data.shards=elsewhere",
        "data.lanes=4",
        "data.window=64",
        "data.inputs.image.shift_pixels=0",
        "data.modality_dropout.audio=0.1",
        "data.datasets.more.shards=there",
        "model.compile=true",
        "optimizer.learning_rate=1",
        "train.steps=5",
        "train.global_batch=32",
        "train.precision=bf16",
        "train.deterministic=false",
        "train.tf32=true",
        "train.label_smoothing=0.1",
        "health.spike_score=6",
    ],
)
def test_what_decides_the_result_may_not(override: str) -> None:
    changes = difference(load(CONFIG), load(CONFIG, [override]))
    assert changes
    assert resume.deciding(changes) == changes


def test_when_evaluations_may_end_a_run_how_often_it_is_evaluated_decides() -> None:
    changes = difference(load(CONFIG), load(CONFIG, ["train.evaluate_every_steps=7"]))
    assert resume.deciding(changes) == []
    assert resume.deciding(changes, stops_early=True) == changes


def test_a_key_that_nobody_classified_decides() -> None:
    assert not resume.may_change("data.new")
    assert not resume.may_change("new")


def test_weights_that_were_learned_with_another_tokenizer_have_another_meaning() -> None:
    assert resume.other_meaning(["data.inputs.text.tokenizer: 'a' -> 'b'", "data.inputs.text.num_tokens: 8 -> 9"]) == [
        "data.inputs.text.tokenizer"
    ]
