"""A batch norm has the statistics of the global batch, however it is cut into micro-batches and ranks."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from stem import CONFIG, GOAL, NORM, OPTIMIZER, STEPS, engine, images, running, trained

from model.modalities.adapters.conv_stem import ConvStem, same_padding
from model.perceiver import Perceiver
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.evaluation.evaluation import evaluate
from trainer.optim.groups import parameter_groups
from trainer.run_state import RunState
from trainer.schedule import learning_rate

# fp32 keeps 7 digits; sums are added in another order.
RELATIVE, ABSOLUTE = 2e-5, 2e-6


class PlainStem(nn.Module):
    """The stem as PyTorch has it: a convolution, and a batch norm over what it is given."""

    def __init__(self, stem: ConvStem) -> None:
        super().__init__()
        self.convolution, self.norm = stem.convolution, nn.BatchNorm2d(64)

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[1:3]
        pads = (*same_padding(width, 7, 2), *same_padding(height, 7, 2))
        features = functional.relu(self.norm(self.convolution(functional.pad(pixels.permute(0, 3, 1, 2), pads))))
        height, width = features.shape[2:]
        pads = (*same_padding(width, 3, 2), *same_padding(height, 3, 2))
        return functional.max_pool2d(functional.pad(features, pads), 3, stride=2).permute(0, 2, 3, 1)


def plain_network() -> Perceiver:
    network = Perceiver(CONFIG, seed=0)
    image = network.inputs.adapters["image"]
    image.stem = PlainStem(image.stem)
    return network


def plain_loop() -> tuple[list[float], dict[str, Tensor]]:
    """Losses and state of a loop over whole batches, without DeepSpeed, ranks, micro-batches or our batch norm."""
    network = plain_network()
    optimizer = torch.optim.AdamW(
        parameter_groups(network, OPTIMIZER),
        eps=OPTIMIZER.epsilon,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
    )
    losses = []
    for step in range(STEPS):
        batch = images(step)
        shown = batch.lengths["image"] > 0
        logits = network({"image": batch.arrays["image"][shown]})["label"]
        loss = functional.cross_entropy(logits, batch.labels[shown])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), OPTIMIZER.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(OPTIMIZER, step, STEPS)
        optimizer.step()
        losses.append(loss.item())
    return losses, network.state_dict()


@pytest.fixture(scope="module")
def plain() -> tuple[list[float], dict[str, Tensor]]:
    return plain_loop()


@pytest.mark.parametrize(
    "micro_batch",
    [pytest.param(1, marks=pytest.mark.slow), 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 8))],
)
def test_every_micro_batch_gives_the_losses_and_weights_of_a_plain_loop_over_whole_batches(
    world: World, plain: tuple[list[float], dict[str, Tensor]], micro_batch: int
) -> None:
    found = engine(world, micro_batch=micro_batch)
    losses = trained(found, world)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(plain[0]), rtol=RELATIVE, atol=0)
    state = found.snapshot()["weight"]
    for name, expected in plain[1].items():
        torch.testing.assert_close(state[name].view(expected.shape), expected, rtol=RELATIVE, atol=ABSOLUTE)
    assert state[NORM + "num_batches_tracked"] == STEPS
    found.close()


@pytest.mark.slow
def test_statistics_of_each_micro_batch_would_be_told_apart(
    world: World, plain: tuple[list[float], dict[str, Tensor]]
) -> None:
    losses = {}
    for micro_batch in (4, 8):
        found = engine(world, network=plain_network(), micro_batch=micro_batch)
        found.network.module.observe = found.network.module.settle = lambda *_, **__: None
        losses[micro_batch] = torch.tensor(trained(found, world))
        found.close()
    for wrong in losses.values():
        with pytest.raises(AssertionError):
            torch.testing.assert_close(wrong, torch.tensor(plain[0]), rtol=RELATIVE, atol=0)
    assert (losses[4] - losses[8]).abs().max() > 1e-3


def test_evaluation_uses_the_running_statistics_and_moves_nothing(world: World) -> None:
    found = engine(world, micro_batch=2)
    trained(found, world)
    before = copy.deepcopy(running(found))
    whole, half = images(0), images(0).micro_batches(2)
    scores = [evaluate(found.network, GOAL, batches, world, ("image",)) for batches in ([whole], half)]
    assert scores[0] == scores[1]
    assert running(found) == before
    network = found.network.module.eval()
    one_by_one = [network({"image": image[None]})["label"] for image in whole.arrays["image"]]
    together = network({"image": whole.arrays["image"]})["label"]
    # float32 in another order.
    torch.testing.assert_close(torch.cat(one_by_one), together, rtol=0, atol=1e-5)
    found.close()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_a_resumed_run_has_the_statistics_to_the_last_bit(tmp_path: Path, world: World, stage: int) -> None:
    fields = {"micro_batch": 2, "zero_stage": stage}
    straight, store = engine(world, **fields), Store(tmp_path, CheckpointConfig(), world)
    trained(straight, world, 0, 2)
    store.save(straight, RunState(step=2))
    losses = trained(straight, world, 2, 4)
    store.wait()
    resumed = engine(world, network=Perceiver(CONFIG, seed=5), **fields)
    assert store.load(resumed) is not None
    assert trained(resumed, world, 2, 4) == losses
    assert running(resumed) == running(straight)
    for trainer in (straight, resumed, store):
        trainer.close()


def test_a_skipped_step_leaves_the_running_statistics_as_they_are(world: World) -> None:
    found = engine(world, micro_batch=2)
    trained(found, world, 0, 1)
    before = copy.deepcopy(running(found))
    broken = images(1)
    broken.weights[0] = float("inf")
    assert found.step(broken).is_skipped
    assert running(found) == before
    found.close()


def test_a_batch_without_any_image_leaves_the_running_statistics_as_they_are(world: World) -> None:
    found = engine(world)
    before = copy.deepcopy(running(found))
    empty = images(0)
    empty.lengths["image"].zero_()
    assert not found.step(empty).is_skipped
    assert running(found) == before
    found.close()


def test_half_precision_keeps_running_statistics_in_float32() -> None:
    network = Perceiver(CONFIG, seed=0)
    norm = network.inputs.adapters["image"].stem.norm
    norm.running_mean.fill_(1 / 3)
    network.half()
    assert norm.running_mean.dtype == norm.running_var.dtype == torch.float32
    assert norm.running_mean[0] == torch.tensor(1 / 3)
    assert norm.weight.dtype == torch.float16


@pytest.mark.slow
def test_worlds_of_one_two_and_four_train_alike_at_every_stage(
    run_ranks: Callable[..., list], plain: tuple[list[float], dict[str, Tensor]]
) -> None:
    for world_size in (1, 2, 4):
        told = run_ranks("stem", world_size)
        # Each rank has the losses and the running statistics of all; the weights that it writes are its own.
        for kind in ("losses", "running"):
            assert all(
                {cut: rank[cut][kind] for cut in rank} == {cut: told[0][cut][kind] for cut in rank} for rank in told
            )
        cuts = {1: {"8/0", "4/1", "2/2", "1/3"}, 2: {"4/0", "2/1", "1/2", "1/3"}, 4: {"2/0", "1/1", "1/2", "1/3"}}
        assert told[0].keys() == cuts[world_size]
        for cut, found in told[0].items():
            losses = torch.tensor(found["losses"])
            torch.testing.assert_close(losses, torch.tensor(plain[0]), rtol=RELATIVE, atol=0, msg=f"{world_size} {cut}")
            statistics = torch.stack([plain[1][NORM + "running_mean"], plain[1][NORM + "running_var"]])
            torch.testing.assert_close(torch.tensor(found["running"]), statistics, rtol=RELATIVE, atol=ABSOLUTE)
            norms = {name: norm for rank in told for name, norm in rank[cut]["weights"].items()}
            for name, expected in plain[1].items():
                assert norms[name] == pytest.approx(expected.double().norm().item(), rel=1e-4, abs=1e-5), (
                    f"{world_size} {cut} {name}"
                )
