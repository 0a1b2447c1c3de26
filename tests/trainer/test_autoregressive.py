"""Autoregression: bits of what comes next, whoever has the sample and however the batch is cut."""

from dataclasses import replace
from math import log, log2

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from data_shards.loading.batch import Batch
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.array import ArrayInput
from model.modalities.input import Input
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.evaluation.attention_maps import attention_maps, readable
from trainer.evaluation.evaluation import evaluate
from trainer.tasks.kinds.autoregressive import AutoregressiveTask
from trainer.tasks.objective import objective
from trainer.tasks.task import Training

ROWS, PLACES, LATENTS = 8, 10, 4


def config_of(known: Input, output: AutoregressiveOutput) -> PerceiverConfig:
    heads = AttentionConfig(num_heads=2, qk_width=8)
    return PerceiverConfig(
        inputs={"stream": known},
        outputs={"next": replace(output, target="stream")},
        num_latents=LATENTS,
        latent_width=16,
        num_cross_attends=1,
        num_blocks=1,
        layers_per_block=1,
        cross_attend=heads,
        self_attend=heads,
    )


TEXT = config_of(TextInput(max_tokens=PLACES, embedding_width=16), AutoregressiveOutput(prefix_dropout=0.4))
ARRAY = config_of(ArrayInput(shape=(5, 2, 3)), AutoregressiveOutput(num_levels=4, lowest=0.0, highest=2.0))


def task_of(config: PerceiverConfig, seed: int = 3) -> AutoregressiveTask:
    output = config.answers()["next"]
    assert isinstance(output, AutoregressiveOutput)
    return AutoregressiveTask("next", output, Training(seed=seed))


def batch_of(stream: Tensor, lengths: list[int], index: int = 0) -> Batch:
    return Batch(
        arrays={"stream": stream},
        lengths={"stream": torch.tensor(lengths)},
        labels=torch.full((len(stream),), -1),
        weights=torch.linspace(0.5, 1.5, len(stream)),
        keys=tuple("abcdefgh"[: len(stream)]),
        index=index,
    )


def texts(index: int = 0) -> Batch:
    ids = torch.randint(6, 262, (ROWS, PLACES), generator=torch.Generator().manual_seed(0)).short()
    return batch_of(ids, [10, 0, 3, 4, 7, 10, 10, 5], index)


def test_the_truths_are_the_last_ids_of_each_text() -> None:
    batch = texts()
    ids, weights = task_of(TEXT).truths(batch)
    for row, length in enumerate(batch.lengths["stream"].tolist()):
        last = batch.arrays["stream"][row, max(length - LATENTS, 0) : length].tolist()
        assert ids[row].tolist() == last + [-1] * (LATENTS - len(last))
    assert torch.equal(weights, batch.weights[:, None].expand(ROWS, LATENTS))


def test_the_truths_of_an_array_are_the_levels_of_its_last_cells_row_by_row() -> None:
    values = torch.zeros(2, 5, 2, 3)
    values[0, 4, 1] = torch.tensor([0.49, 0.5, 1.99])
    values[0, 4, 0] = torch.tensor([-7.0, 9.0, 1.0])
    ids, _ = task_of(ARRAY).truths(batch_of(values, [5, 1]))
    assert ids[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 3, 2], [0, 1, 3]]
    assert ids[1].tolist() == [[0, 0, 0], [0, 0, 0], [-1] * 3, [-1] * 3]


def test_levels_divide_what_lies_between_the_lowest_and_the_highest_value() -> None:
    config = config_of(ArrayInput(shape=(5, 2, 3)), AutoregressiveOutput(num_levels=4, lowest=-1.0, highest=3.0))
    values = torch.tensor([-1.0, -0.01, 0.0, 0.99, 1.0, 3.0]).view(1, 2, 3)
    assert task_of(config).levels(values).tolist() == [[[0, 0, 1], [1, 2, 3]]]


def test_a_batch_of_texts_that_are_shorter_than_the_latents_asks_for_what_there_is() -> None:
    batch = batch_of(torch.tensor([[7, 8, 9], [7, 0, 0]]), [3, 1])
    ids, weights = task_of(TEXT).truths(batch)
    assert ids.tolist() == [[7, 8, 9], [7, -1, -1]]
    assert weights.shape == (2, 3)


@pytest.mark.parametrize("config", [TEXT, ARRAY])
def test_bits_and_hits_are_those_of_what_real_samples_have(config: PerceiverConfig, world: World) -> None:
    batch = texts() if config is TEXT else batch_of(torch.rand(ROWS, 5, 2, 3) * 2, [5, 0, 1, 2, 5, 5, 5, 5])
    ids, _ = task_of(config).truths(batch)
    num = 262 if config is TEXT else 4
    answer = torch.randn(*ids.shape, num, generator=torch.Generator().manual_seed(4))
    # Two of the samples are answered rightly, one only fills the batch.
    answer[2:4] += 20 * functional.one_hot(ids[2:4].clamp(min=0), num)
    batch = replace(batch, keys=("", *batch.keys[1:]))

    class Says(nn.Module):
        def forward(self, *_: object, **__: object) -> dict[str, Tensor]:
            return {"next": answer}

    asked = ids >= 0
    asked[0] = False
    bits = -answer.double().log_softmax(dim=-1).gather(-1, ids.clamp(min=0)[..., None])[..., 0] / log(2)
    right = (answer.argmax(dim=-1) == ids) & asked
    found = evaluate(Says(), objective(config.answers()), [batch], world, ("stream",))
    unit = "byte" if config is TEXT else "element"
    expected = {f"next/bits_per_{unit}": bits[asked].mean(), "next/accuracy": right.sum() / asked.sum()}
    assert found.flat() == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-6)
    assert 0 < found.flat()["next/accuracy"] < 1
    assert found.samples == ROWS - 2


@pytest.mark.parametrize(("config", "unit"), [(TEXT, "byte"), (ARRAY, "element")])
def test_a_uniform_guess_costs_the_logarithm_of_what_there_is_to_choose_from(
    config: PerceiverConfig, unit: str, world: World
) -> None:
    batch = texts() if config is TEXT else batch_of(torch.rand(ROWS, 5, 2, 3) * 2, [5, 0, 1, 2, 5, 5, 5, 5])
    shape, number = ((LATENTS, 262), 262) if config is TEXT else ((LATENTS, 3, 4), 4)
    task = task_of(config)
    loss = task.sum(torch.zeros(ROWS, *shape), batch) / task.count(batch)
    assert loss.item() == pytest.approx(log2(number), rel=1e-5)

    class Uniform(nn.Module):
        def forward(self, *_: object, **__: object) -> dict[str, Tensor]:
            return {"next": torch.zeros(ROWS, *shape)}

    found = evaluate(Uniform(), objective(config.answers()), [batch], world, ("stream",))
    assert found.flat()[f"next/bits_per_{unit}"] == pytest.approx(log2(number), rel=1e-5)
    assert found.num_judged == {"next": ROWS - 1}
    metrics = task.metrics()
    assert (metrics[0].shown(6.324), metrics[0].higher_is_better) == ("6.324", False)  # its name has the unit


def test_another_vocabulary_is_one_of_tokens() -> None:
    tokens = config_of(TextInput(max_tokens=PLACES, vocabulary=40, embedding_width=16), AutoregressiveOutput())
    assert task_of(tokens).metrics()[0].name == "bits_per_token"


def test_the_loss_is_the_mean_of_the_bits_of_all_answers_however_the_batch_is_cut() -> None:
    task, batch = task_of(TEXT), texts()
    answer = torch.randn(ROWS, LATENTS, 262, generator=torch.Generator().manual_seed(2))
    ids, weights = task.truths(batch)
    bits = functional.cross_entropy(answer.flatten(0, 1), ids.flatten().clamp(min=0), reduction="none") / log(2)
    known = (weights * (ids >= 0)).flatten()
    expected = (bits * known).sum() / known.sum()
    for num_parts in (1, 4):
        parts = zip(answer.chunk(num_parts), batch.micro_batches(num_parts), strict=True)
        found = sum(task.sum(rows, part) for rows, part in parts) / task.count(batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_hidden_of_a_prefix_follows_from_seed_batch_and_sample() -> None:
    task, batch = task_of(TEXT), texts()
    whole = task.hides(batch)["stream"]
    assert whole.shape == (ROWS, PLACES)
    assert 0.25 < whole.float().mean() < 0.55
    cut = torch.cat([task.hides(part)["stream"] for part in batch.micro_batches(4)])
    assert torch.equal(cut, whole)
    assert not torch.equal(task.hides(replace(batch, index=1))["stream"], whole)
    assert not torch.equal(task_of(TEXT, seed=4).hides(batch)["stream"], whole)
    assert not task.hides(batch, every=True), "an evaluation hides nothing"
    assert not task_of(ARRAY).hides(batch)


def test_what_is_hidden_of_a_prefix_is_the_same_in_every_release() -> None:
    # A run that resumes under another release must hide what it would have hidden.
    assert task_of(TEXT).hides(texts(5))["stream"][:2].int().tolist() == [
        [0, 1, 1, 1, 1, 1, 0, 0, 0, 1],
        [1, 0, 0, 1, 1, 0, 0, 0, 0, 0],
    ]


def test_a_text_is_learned_however_the_batch_is_cut(world: World) -> None:
    losses = []
    for micro_batch in (ROWS, 2):
        train = TrainConfig(steps=10, global_batch=ROWS, micro_batch=micro_batch)
        optimizer = OptimizerConfig(learning_rate=0.01, warmup_steps=1)
        goal = objective(TEXT.answers(), seed=3)
        engine = Engine(Perceiver(TEXT, seed=0), goal, optimizer=optimizer, train=train, world=world)
        losses.append([engine.step(texts(index)).loss for index in range(10)])
        engine.close()
    # Sums of float32 in another order, after up to ten steps.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.9 * losses[0][0]


def test_the_attention_map_of_a_latent_ends_at_what_it_answers() -> None:
    network, batch = Perceiver(TEXT, seed=0), texts()
    (found,) = attention_maps(readable(TEXT, network.state_dict()), batch.arrays, batch.lengths)
    weights = found.weights["stream"]
    for latent in range(LATENTS):
        place = PLACES - LATENTS + latent
        assert not weights[0, latent, place:].any()
        assert weights[0, latent, :place].gt(0).all()
