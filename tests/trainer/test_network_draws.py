"""What a step draws for its network follows from the seed, the global batch, and each sample's place in it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.tasks.network_draws import NetworkDraws
from trainer.tasks.objective import objective

ROWS, CLASSES, STEPS = 8, 5, 3
IMAGE = ImageInput(height=4, width=4, positions=PositionsConfig(num_bands=2))
CONFIG = PerceiverConfig(
    inputs={"photo": IMAGE},
    outputs={"label": LabelOutput(num_classes=CLASSES)},
    num_latents=4,
    latent_width=16,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=2),
    dropout=0.2,
    drop_path=0.3,
)


def batch_of(index: int, *names: str) -> Batch:
    generator = torch.Generator().manual_seed(index)
    images = {name: torch.rand(ROWS, 4, 4, 3, generator=generator) for name in names or ("photo",)}
    return Batch(
        arrays=images,
        lengths={name: torch.full((ROWS,), 4) for name in images},
        labels=torch.arange(ROWS) % CLASSES,
        weights=torch.ones(ROWS),
        keys=tuple("abcdefgh"),
        index=index,
    )


def losses(world: World, *, micro_batch: int, zero_stage: int = 0, seed: int = 0, first: int = 0) -> list[float]:
    network = Perceiver(CONFIG, seed=0)
    goal = objective(CONFIG.answers(), draws=NetworkDraws.of(CONFIG, seed))
    train = TrainConfig(steps=STEPS, global_batch=ROWS, micro_batch=micro_batch, zero_stage=zero_stage)
    engine = Engine(network, goal, optimizer=OptimizerConfig(), train=train, world=world)
    try:
        return [float(engine.step(batch_of(first + step)).loss) for step in range(STEPS)]
    finally:
        engine.close()


def drawn(batch: Batch, seed: int = 0) -> Tensor:
    return NetworkDraws(seed, drops=True).asks(batch)["draws"]


def test_each_place_of_each_global_batch_draws_two_numbers_of_32_bits() -> None:
    numbers = torch.cat([drawn(batch_of(index)) for index in range(4)])
    assert (numbers.dtype, tuple(numbers.shape)) == (torch.int64, (4 * ROWS, 2))
    assert 0 <= numbers.min() < 2**28
    assert 2**31 < numbers.max() < 2**32
    assert len(numbers.unique()) == 8 * ROWS
    assert not torch.equal(drawn(batch_of(0)), drawn(batch_of(0), seed=1))


@pytest.mark.parametrize("num_parts", [2, 4, 8])
def test_neither_ranks_nor_micro_batches_change_what_a_sample_draws(num_parts: int) -> None:
    batch = batch_of(5)
    parts = batch.micro_batches(num_parts)
    assert torch.equal(torch.cat([drawn(part) for part in parts]), drawn(batch))
    # A rank's part is cut once more.
    (*_, last) = parts[-1].micro_batches(ROWS // num_parts)
    assert torch.equal(drawn(last), drawn(batch)[-1:])


def test_a_sample_that_is_in_a_batch_twice_is_dropped_differently() -> None:
    numbers = drawn(replace(batch_of(0), keys=("a",) * ROWS))
    assert len(numbers.unique(dim=0)) == ROWS


@pytest.mark.slow
def test_losses_with_dropout_are_the_same_at_any_micro_batch_and_zero_stage(world: World) -> None:
    expected = losses(world, micro_batch=0)
    for micro_batch, stage in ((1, 0), (2, 1), (4, 2)):
        # Gradients are added in another order.
        assert losses(world, micro_batch=micro_batch, zero_stage=stage) == pytest.approx(expected, rel=1e-5)
    assert losses(world, micro_batch=0, seed=1) != pytest.approx(expected, rel=1e-3)


def test_a_network_without_dropout_is_asked_for_nothing_and_an_evaluation_never() -> None:
    still = replace(CONFIG, dropout=0.0, drop_path=0.0)
    assert NetworkDraws.of(still, 0).asks(batch_of(0)) == {}
    goal = objective(CONFIG.answers(), draws=NetworkDraws.of(CONFIG, 0))
    assert goal.asks(batch_of(0), every=True) == {}
    assert list(goal.asks(batch_of(0))) == ["draws"]


def test_the_passes_that_gather_embeddings_draw_what_the_passes_that_learn_draw(world: World) -> None:
    config = replace(
        CONFIG,
        inputs={"photo": IMAGE, "sketch": IMAGE},
        outputs={"pair": EmbeddingOutput(pair=("photo", "sketch"), width=8)},
    )
    network = Perceiver(config, seed=0)
    goal = objective(config.answers(), draws=NetworkDraws.of(config, 0))
    batch = batch_of(0, "photo", "sketch")
    gathered = goal.others(network, [batch], world)[0]["pair"].answers
    learned = goal.answers(network, batch, batch.host_lengths, **goal.asks(batch))["pair"]
    assert torch.equal(gathered, learned)


NESTED = replace(CONFIG, dropout=0.0, drop_path=0.0, num_latents=4, nested_latents=(1, 2, 4))


def test_each_step_draws_a_size_from_the_seed_and_the_number_of_the_global_batch() -> None:
    draws = NetworkDraws.of(NESTED, 3)
    sizes = [draws.num_latents(index) for index in range(3_000)]
    # Five deviations of the count of all latents, which take part in half of the steps.
    assert all(abs(sizes.count(size) / 3_000 - share) < 0.046 for size, share in NESTED.latent_shares.items())
    assert NESTED.latent_shares == {1: 0.25, 2: 0.25, 4: 0.5}
    assert CONFIG.latent_shares == {CONFIG.num_latents: 1.0}
    # A running run must survive an update of numpy.
    assert sizes[:12] == [4, 2, 2, 1, 4, 4, 1, 1, 4, 2, 4, 2]
    assert sizes[:100] != [NetworkDraws.of(NESTED, 4).num_latents(index) for index in range(100)]
    batch = batch_of(7)
    assert (
        [draws.asks(part) for part in batch.micro_batches(4)]
        == [draws.asks(batch)] * 4
        == [{"num_latents": sizes[7]}] * 4
    )
    assert draws.largest().asks(batch) == {}


def test_a_step_trains_the_latents_that_it_draws() -> None:
    network = Perceiver(NESTED, seed=0)
    draws = NetworkDraws.of(NESTED, 3)
    goal = objective(NESTED.answers(), draws=draws)
    index = next(index for index in range(100) if draws.num_latents(index) == 2)
    batch = batch_of(index)
    found = goal.sums(network, batch)["label"]
    expected = objective(NESTED.answers()).sums(network.cut(2), batch)["label"]
    assert torch.equal(found, expected)
