"""A checkpoint is named: the newest, the best, or that of a step; the newest that can be read is taken."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from checkpoints import rewrite, save
from threads import ThreadWorld, on_ranks

from trainer.checkpoint.choice import first_readable, read_weights, refuse_absent
from trainer.checkpoint.manifest import newest_whole, read_whole
from trainer.distributed.world import World

ALONE = World(0, 1, 0, torch.device("cpu"))
SCORES = {100: 0.5, 150: 0.9, 200: float("nan"), 300: 0.8, 400: None}


def weights(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3,), float(step))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step, score in SCORES.items():
        save(tmp_path, step, weights(step), score=score)
    return tmp_path


@pytest.mark.parametrize(("which", "step"), [("newest", 400), ("best", 150), ("300", 300), ("00100", 100)])
def test_the_weights_are_those_of_the_checkpoint_that_was_named(folder: Path, which: str, step: int) -> None:
    found = read_weights(folder, which, ALONE)
    assert (found.step, found.passed_over) == (step, ())
    assert torch.equal(found.tensors["a"], weights(step)["a"])


@pytest.mark.parametrize("which", ["350", "", "oldest", "-1", "1e2", "9" * 30, "²"])
def test_another_word_is_refused_with_what_there_is(folder: Path, which: str) -> None:
    with pytest.raises(ValueError, match=r"expected newest, best or one of the steps.*100, 150, 200, 300, 400"):
        read_weights(folder, which, ALONE)


def test_without_a_score_there_is_no_best(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no complete checkpoint yet"):
        read_weights(tmp_path, "best", ALONE)
    save(tmp_path, 7, weights(7))
    with pytest.raises(ValueError, match=r"none is the best.*7.*keep_best"):
        read_weights(tmp_path, "best", ALONE)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_newest_one_gives_way_and_is_told_and_a_named_one_does_not(folder: Path) -> None:
    flip(next((folder / "step_00000400").glob("weight*")))
    found = read_weights(folder, "newest", ALONE)
    assert found.step == 300
    [sentence] = found.passed_over
    assert "step_00000400/weight-00000-of-00001.safetensors: content does not match its hash" in sentence
    with pytest.raises(ValueError, match=r"content does not match.*newest or one of the steps [0-9, ]*300$"):
        read_weights(folder, "400", ALONE)
    for path in folder.glob("step_00000[123]*/weight*"):
        flip(path)
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        read_weights(folder, "newest", ALONE)


def test_a_best_one_that_is_damaged_is_told_and_none_takes_its_place_unsaid(folder: Path) -> None:
    best = folder / "step_00000150"
    file = next(best.glob("weight*"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"step_00000150/weight-\S+: \d+ bytes, expected \d+; .*100, 200, 300, 400"):
        read_weights(folder, "best", ALONE)
    (best / "checkpoint.json").write_text("[]")
    found = read_weights(folder, "best", ALONE)
    assert found.step == 300
    [sentence] = found.passed_over
    assert "step_00000150/checkpoint.json: cannot be read" in sentence


def test_retention_beside_a_reader_makes_it_take_the_next_newest(folder: Path) -> None:
    asked = []

    def read(path: Path) -> str:
        asked.append(path.name)
        if len(asked) < 3:
            shutil.rmtree(path)  # the run that trains deletes it just now,
            if len(asked) == 2:
                save(folder, 500, weights(500))  # and has written a newer one
        return read_whole(path).state.step

    path, step, passed_over = first_readable(folder, "newest", ALONE, read)
    assert asked == ["step_00000400", "step_00000300", "step_00000500"]
    assert (path.name, step, passed_over) == ("step_00000500", 500, ())


def test_a_checkpoint_that_cannot_be_found_is_refused_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    for which in ("newest", "best", "300"):
        refuse_absent(folder, which, "ema")
    for which, weights_of, sentence in (
        ("350", "trained", "expected newest, best or one of the steps that are there: 100, 150, 200, 300, 400"),
        ("newest", "raw", "--weights raw: expected trained or ema"),
    ):
        with pytest.raises(ValueError, match=sentence):
            refuse_absent(folder, which, weights_of)
    with pytest.raises(ValueError, match="holds no complete checkpoint yet"):
        refuse_absent(tmp_path / "none", "newest", "trained")


def test_a_resume_takes_the_newest_that_is_whole_and_tells_of_those_that_it_skips(folder: Path) -> None:
    assert newest_whole(folder) == (folder / "step_00000400", [])
    flip(next((folder / "step_00000400").glob("exp_avg-*")))
    (folder / "step_00000300" / "checkpoint.json").unlink()
    path, (first, second) = newest_whole(folder)
    assert path == folder / "step_00000200"
    assert "step_00000400/exp_avg-00000-of-00001.safetensors: content does not match its hash" in first
    assert "step_00000300/checkpoint.json: " in second
    assert newest_whole(folder / "none") == (None, [])


def test_one_that_the_run_deletes_meanwhile_is_not_told_as_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> object:
        if path.name == "step_00000400":
            shutil.rmtree(path)
        return read_whole(path)

    monkeypatch.setattr("trainer.checkpoint.manifest.read_whole", read)
    assert newest_whole(folder) == (folder / "step_00000300", [])


WRONG = [None, True, -1, 1.5, "x", [], ["x"], {}, {"a": []}, [[1]], 10**30, float("nan")]


@pytest.mark.parametrize(
    "key", ["state", "engine", "identity", "world_size", "files", "score", "versions", "version", "state.step",
            "state.skipped_batches", "state.recent_losses", "engine.steps", "engine.loss_scale", "unheard_of"],
)  # fmt: skip
def test_a_manifest_with_a_wrong_type_anywhere_is_a_sentence_with_the_files_name(tmp_path: Path, key: str) -> None:
    for number, value in enumerate(WRONG):
        checkpoint = save(tmp_path / str(number), 7, weights(7))
        rewrite(checkpoint, key, value)
        try:
            manifest = read_whole(checkpoint)
        except ValueError as error:
            assert str(checkpoint / "checkpoint.json") in str(error)  # noqa: PT017
        else:
            assert manifest.state.step == 7
            assert isinstance(manifest.engine.steps, int)


def test_what_several_ranks_find_wrong_is_told_once_and_in_order(tmp_path: Path) -> None:
    save(tmp_path, 3, {"a": torch.ones(2)})

    def rank(world: ThreadWorld) -> str:
        def read(path: Path) -> None:
            raise ValueError(f"file {7 - world.rank // 2} of {path.name} is damaged")

        with pytest.raises(ValueError, match="is damaged") as refused:
            first_readable(tmp_path, "3", world, read)
        return str(refused.value)

    told = "; ".join(f"file {number} of step_00000003 is damaged" for number in (4, 5, 6, 7))
    assert all(words.startswith(f"{told}; --checkpoint can name") for words in on_ranks(8, rank))
