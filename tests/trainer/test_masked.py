"""Masked modelling of patches: what is hidden is a function of the sample, and nothing else is learned from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.masked import MaskedOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.evaluation.evaluation import evaluate
from trainer.tasks.kinds.masked import MaskedTask
from trainer.tasks.objective import objective
from trainer.tasks.task import Training

ROWS = 8
IMAGE = ImageInput(height=4, width=6, patch=2, positions=PositionsConfig(num_bands=2))
SIZES: dict[str, Any] = {"num_latents": 4, "latent_width": 16, "num_cross_attends": 1, "num_blocks": 1}
CONFIG = PerceiverConfig(
    inputs={"image": IMAGE},
    outputs={"patches": MaskedOutput(target="image", fraction=0.5, positions=PositionsConfig(num_bands=2))},
    mask_tokens=True,
    layers_per_block=1,
    **SIZES,
)


def task_of(**changes: Any) -> MaskedTask:  # noqa: ANN401  # any field
    output = CONFIG.answers()["patches"]
    assert isinstance(output, MaskedOutput)
    return MaskedTask("patches", replace(output, **changes), Training(seed=3))


def batch_of(index: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        arrays={"image": torch.randint(0, 256, (ROWS, 4, 6, 3), dtype=torch.uint8, generator=generator)},
        lengths={"image": torch.tensor([4, 0, 1, *[4] * 5])},
        labels=torch.full((ROWS,), -1),
        weights=torch.linspace(0.5, 1.5, ROWS),
        keys=tuple("abcdefgh"),
        index=index,
    )


def test_the_tokens_and_the_shape_are_those_of_the_input() -> None:
    output = task_of().output
    assert (output.shape, output.num_channels) == ((4, 6), 3)
    assert isinstance(output, MaskedOutput)
    assert (output.token_grid, output.num_hidden) == ((2, 3), 3)


def test_half_of_the_tokens_of_each_sample_are_hidden_whoever_has_it() -> None:
    task, batch = task_of(), batch_of()
    whole = task.hides(batch)["image"]
    assert whole.sum(dim=1).tolist() == [3] * ROWS
    assert len(whole.unique(dim=0)) > 3
    cut = torch.cat([task.hides(part)["image"] for part in batch.micro_batches(4)])
    assert torch.equal(cut, whole)
    assert not torch.equal(task.hides(replace(batch, index=1))["image"], whole)
    assert not torch.equal(replace(task, training=Training(seed=4)).hides(batch)["image"], whole)
    judged = [task.hides(replace(batch, index=index), every=True)["image"] for index in (0, 1)]
    assert torch.equal(*judged), "an evaluation hides the same each time"


def test_what_is_hidden_is_the_same_in_every_release() -> None:
    # A run that resumes under another release must hide what it would have hidden.
    task = task_of()
    found = [task.hides(batch_of(5), every=every)["image"][:3].int().tolist() for every in (False, True)]
    assert found == [
        [[0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 0]],
        [[0, 1, 0, 0, 1, 1], [1, 0, 0, 1, 1, 0], [1, 0, 1, 0, 1, 0]],
    ]
    # Of more than 10 000 tokens, of which few are hidden, NumPy draws others where it is to shuffle them.
    many = task_of(shape=(202, 200), token_grid=(101, 100), fraction=0.04).hides(batch_of(5))["image"][0].nonzero()
    assert (len(many), many[:6].flatten().tolist()) == (404, [18, 54, 93, 103, 128, 162])


def test_what_two_answers_hide_of_an_input_is_hidden_from_both() -> None:
    batch, other = batch_of(), replace(CONFIG.answers()["patches"], loss_weight=0.5)
    goal = objective({"patches": CONFIG.answers()["patches"], "others": other}, seed=3)
    of_each = [task.hides(batch)["image"] for task in goal.tasks.values()]
    assert not torch.equal(*of_each)
    assert torch.equal(goal.asks(batch)["hidden"]["image"], of_each[0] | of_each[1])


@pytest.mark.parametrize("train_queries", [0, 11])
@pytest.mark.parametrize("loss", ["absolute", "squared"])
def test_a_loss_is_the_mean_over_the_values_in_hidden_patches(train_queries: int, loss: str) -> None:
    task, batch = task_of(train_queries=train_queries, loss=loss), batch_of()
    points = task.points(batch)
    answer = torch.rand(ROWS, 4, 6, 3, generator=torch.Generator().manual_seed(2))
    asked = answer if points is None else answer.flatten(1, 2)[:, points]
    # A patch is 2 x 2 pixels.
    hidden = task.hides(batch)["image"].view(ROWS, 2, 3).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    counts = hidden if points is None else hidden.flatten(1)[:, points]
    truth = batch.arrays["image"] / 255
    errors = asked - (truth if points is None else truth.flatten(1, 2)[:, points])
    errors = errors.abs() if loss == "absolute" else errors.square()
    weights = (batch.weights * (batch.lengths["image"] > 0)).view(ROWS, *[1] * counts.ndim) * counts[..., None]
    expected = (errors * weights).sum() / weights.expand_as(errors).sum()
    for num_parts in (1, 4):
        parts = zip(asked.chunk(num_parts), batch.micro_batches(num_parts), strict=True)
        found = sum(task.sum(rows, part) for rows, part in parts) / task.count(batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_network_does_not_see_what_is_hidden_and_is_judged_there(world: World) -> None:
    network, batch = Perceiver(CONFIG, seed=0).eval(), batch_of()
    goal = objective(CONFIG.answers(), seed=3)
    asks = goal.asks(batch)
    assert asks.keys() == {"hidden"}
    changed = torch.where(
        task_of().hides(batch)["image"].view(ROWS, 2, 3, 1).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2),
        255 - batch.arrays["image"],
        batch.arrays["image"],
    )
    expected = network(batch.arrays, batch.lengths, **asks)["patches"]
    assert torch.equal(network({"image": changed}, batch.lengths, **asks)["patches"], expected)
    assert not torch.equal(network({"image": changed}, batch.lengths)["patches"], expected)

    class Wrong(nn.Module):
        def forward(self, arrays: dict[str, Tensor], lengths: dict[str, Tensor], **asks: Any) -> dict[str, Tensor]:  # noqa: ANN401
            mask = asks["hidden"]["image"].view(-1, 2, 3).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
            return {"patches": arrays["image"] / 255 + 0.25 * mask[..., None]}

    found = evaluate(Wrong(), goal, [batch, batch], world, ("image",))
    assert found.flat()["patches/root_mean_squared_error"] == pytest.approx(0.25, rel=1e-6)
    assert found.num_judged == {"patches": 14}


def test_hidden_patches_are_learned_however_the_batch_is_cut(world: World) -> None:
    losses = []
    for micro_batch in (ROWS, 2):
        train = TrainConfig(steps=10, global_batch=ROWS, micro_batch=micro_batch)
        optimizer = OptimizerConfig(learning_rate=0.01, warmup_steps=1)
        goal = objective(CONFIG.answers(), seed=3)
        engine = Engine(Perceiver(CONFIG, seed=0), goal, optimizer=optimizer, train=train, world=world)
        losses.append([engine.step(batch_of(index)).loss for index in range(10)])
        engine.close()
    # Sums of float32 in another order, after up to ten steps.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.9 * losses[0][0]
