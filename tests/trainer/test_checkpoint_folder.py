"""A checkpoint is what its manifest says to the last byte, or it is said what is wrong with it."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import rewrite, save

from trainer.checkpoint.layout import difference, other_data, read_weights, scores
from trainer.checkpoint.manifest import damage, read_manifest, read_whole
from trainer.checkpoint.names import MANIFEST

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path, 7, WEIGHTS, score=0.5)


@pytest.mark.parametrize("key", ["state.step", "engine.applied_steps", "world_size", "score", "xxh3"])
def test_a_manifest_of_which_a_word_was_changed_is_refused(checkpoint: Path, key: str) -> None:
    path = checkpoint / MANIFEST
    fields = json.loads(path.read_text())
    *parents, last = key.split(".")
    inner = fields
    for parent in parents:
        inner = inner[parent]
    inner[last] = 8 if key != "xxh3" else "0" * 16
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"checkpoint\.json: its content does not match its hash"):
        read_manifest(checkpoint)
    del fields["xxh3"]
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"checkpoint\.json: its content does not match its hash"):
        read_manifest(checkpoint)


def test_a_manifest_is_open_to_read_with_a_line_for_each_key(checkpoint: Path) -> None:
    text = (checkpoint / MANIFEST).read_text()
    lines = [line.strip().partition(":")[0] for line in text.splitlines()]
    fields = json.loads(text)
    assert {f'"{key}"' for key in (*fields, *fields["state"], *fields["files"])} <= set(lines)


def test_a_manifest_of_another_layout_is_refused_with_both_versions(checkpoint: Path) -> None:
    rewrite(checkpoint, "version", 2)
    with pytest.raises(ValueError, match=r"checkpoint\.json: version 2, this release reads 1"):
        read_manifest(checkpoint)


def test_every_file_that_is_not_what_was_written_has_its_sentence(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    names = sorted(manifest.files)
    assert damage(checkpoint, names, manifest) == []
    first, second, third = (checkpoint / name for name in names)
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    second.unlink()
    third.write_bytes(content[:-1] + b"\x01")
    assert damage(checkpoint, names, manifest) == [
        f"{first}: {len(content) - 1} bytes, expected {len(content)}",
        f"{second}: No such file or directory",
        f"{third}: content does not match its hash",
    ]
    assert len(damage(checkpoint, names[2:], manifest)) == 1


def test_weights_need_only_the_files_of_weights(checkpoint: Path) -> None:
    for path in checkpoint.glob("exp_avg*"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = read_weights(checkpoint)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())
    with pytest.raises(ValueError, match=r"exp_avg-.*content does not match its hash; .*exp_avg_sq-"):
        read_whole(checkpoint)


def test_scores_are_those_of_checkpoints_whose_manifest_can_be_read(tmp_path: Path) -> None:
    for step, score in ((1, 0.25), (2, None), (3, 0.75), (4, 0.5)):
        save(tmp_path, step, WEIGHTS, score=score)
    manifest = tmp_path / "step_00000004" / MANIFEST
    manifest.write_text(manifest.read_text().replace("0.5", "0.6"))
    (tmp_path / "step_00000005").mkdir()
    assert scores(sorted(tmp_path.glob("step_*"))) == {1: 0.25, 2: None, 3: 0.75}


def test_what_differs_between_two_networks_is_named_and_counted() -> None:
    shapes = {f"layer{number}": (number, 2) for number in range(9)}
    assert difference(shapes, dict(shapes)) == ""
    assert difference({"a": (2,), "b": (3,)}, {"a": (2,), "c": (4, 5)}) == (
        "2 of 3 tensors differ (b: [3] there, none here; c: none there, [4, 5] here)"
    )
    told = difference(shapes, dict.fromkeys(list(shapes)[:6], (1, 1)))
    assert told.startswith("9 of 9 tensors differ (layer0: [0, 2] there, [1, 1] here; layer1: ")
    assert told.endswith("layer4: [4, 2] there, [1, 1] here; and 4 more)")
    assert "more" not in difference(dict(list(shapes.items())[:5]), {})


def test_other_data_is_told_by_each_thing_that_differs() -> None:
    assert other_data({"seed": 1, "more": 2}, {"seed": 1}) == ""
    assert other_data({"seed": 1}, {"seed": 2, "data": "a"}) == (
        "belongs to a run on other data (seed was 1, is 2; data was None, is 'a')"
    )
    told = other_data({"manifest": "a" * 64, "datasets": "a" * 16}, {"manifest": "b" * 64, "datasets": ""})
    assert "data.shards, or those of data.datasets, hold other samples" in told
    assert "data.datasets: names, weights or modalities are others" in told
    assert not {"a" * 16, "b" * 16} & {told[at : at + 16] for at in range(len(told))}
