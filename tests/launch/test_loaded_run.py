"""A run is loaded in one call, and its network answers a sample of its own in two more."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import save
from test_evaluate import run

from configs.run import dump, load
from data_shards.sources.prediction.new_samples import NewSamples
from launch.answers import answering, loaded_run
from launch.answers.answering import Answering
from launch.answers.loaded_run import load_run
from launch.lifecycle.run_folder import RunFolder
from launch.networks.network_files import network_of
from launch.run.loaders import identity
from launch.run.trained.network import trained
from model.perceiver import Perceiver
from trainer.checkpoint.names import MANIFEST
from trainer.distributed.world import World
from trainer.ema_config import EmaConfig
from trainer.tasks.answer import Telling

__all__ = ["run"]


def test_three_lines_answer_a_decoded_sample(run: RunFolder) -> None:
    loaded = load_run(run.path)
    batch = next(iter(loaded.loader("test")))
    answer = loaded.network(batch.arrays, batch.lengths)["label"]
    assert answer.shape == (1, 3)
    assert loaded.class_names == ("class 0", "class 1", "class 2")
    assert (loaded.step, loaded.notes, loaded.config.train.global_batch) == (8, (), 8)
    assert not loaded.network.training


@pytest.mark.parametrize(("checkpoint", "step"), [("best", 4), (4, 4), ("8", 8), ("newest", 8)])
def test_the_checkpoint_is_the_one_that_is_asked_for(run: RunFolder, checkpoint: str | int, step: int) -> None:
    loaded = load_run(str(run.path), checkpoint=checkpoint)
    expected = Perceiver(loaded.config.model, seed=step).state_dict()
    assert loaded.step == step
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.network.state_dict().items())


def test_the_weights_are_those_that_are_asked_for_and_else_those_that_the_run_evaluates(run: RunFolder) -> None:
    """By load_run, export and eval alike: here the average is that of the weights of another seed."""
    config = load(run.config_path)
    here, averaged = (Perceiver(config.model, seed=seed).state_dict() for seed in (12, 5))
    average = {name: tensor / 2 for name, tensor in averaged.items()}
    save(run.checkpoints_folder, 12, here, identity=identity(config), average=average)

    def taken(weights: str) -> dict[str, Tensor]:
        alone = World(0, 1, 0, torch.device("cpu"))
        loaded, exported = load_run(run.path, weights=weights), network_of(run.path, weights=weights)
        chosen = trained(run.path, load(run.config_path), "newest", alone, weights)
        assert loaded.trained.weights == chosen.weights
        states = [network.state_dict() for network in (loaded.network, exported, chosen.network)]
        assert all(torch.equal(state[name], states[0][name]) for state in states[1:] for name in state)
        return states[0]

    for weights, expected in (("", here), ("trained", here), ("ema", averaged)):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in taken(weights).items())
    run.config_path.write_text(dump(replace(config, ema=EmaConfig(decay=0.5, evaluate=True))))
    for weights, expected in (("", averaged), ("trained", here)):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in taken(weights).items())
    with pytest.raises(ValueError, match=r"step_00000008: holds no moving average .* Take weights trained, or a later"):
        load_run(run.path, checkpoint=8)


def test_the_split_is_that_which_the_run_evaluates_where_none_is_named(run: RunFolder) -> None:
    with load_run(run.path).loader() as loader:
        assert len(list(loader)) == 5
    with load_run(run.path).loader("other", global_batch=2) as loader:
        assert sum(batch.num_samples for batch in loader) == 3


def test_samples_are_drawn_with_the_seed_of_the_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.config_path.write_text(dump(replace(load(run.config_path), seed=7)))
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(loaded_run, "ShardLoader", lambda _data, **options: asked.append(options))
    monkeypatch.setattr(answering, "objective", lambda _answers, **options: asked.append(options))
    loaded = load_run(run.path)
    loaded.loader("other", global_batch=2)
    assert Answering(loaded.trained, NewSamples(loaded.config.data), Telling({}, {}, 1), ())._objective is None
    assert asked == [{"global_batch": 2, "seed": 7, "split": "other"}, {"seed": 7}]


def test_what_could_not_be_had_is_noted(run: RunFolder) -> None:
    (run.checkpoints_folder / "step_00000008" / MANIFEST).unlink()
    shutil.rmtree(run.path.parent / "shards")
    run.class_names_path.unlink()
    loaded = load_run(run.path)
    assert (loaded.step, loaded.class_names, len(loaded.notes)) == (4, (), 2)
    assert loaded.notes[0].startswith("skipped a damaged checkpoint: ")
    assert loaded.notes[1].startswith("class names are not ")
    with pytest.raises(ValueError, match=rf"^{run.path}: nothing is evaluated: .*shards"):
        loaded.loader()


def test_what_is_no_run_is_refused(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        load_run(tmp_path / "none")
    with pytest.raises(ValueError, match=r"^checkpoint 5: expected newest, best or one of the steps .*: 4, 8"):
        load_run(run.path, checkpoint=5)
