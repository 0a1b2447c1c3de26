"""The micro-batch is halved until it fits, and the global batch stays."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from stem import CONFIG, GLOBAL_BATCH, GOAL, images
from threads import ThreadWorld, on_ranks
from tiny import CLASSES, OPTIMIZER, Network, whole_batch

from data_shards.loading.batch import Batch
from model.perceiver import Perceiver
from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.memory import fitting

WORLD = World(0, 1, 0, torch.device("cpu"))


class Hungry(Network):
    """Runs out of memory above so many samples."""

    def __init__(self, most: int) -> None:
        super().__init__(seed=0)
        self.most = most

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        if len(inputs["points"]) > self.most:
            raise torch.OutOfMemoryError("more than there is")
        return super().forward(inputs, lengths)


@pytest.mark.parametrize(("most", "expected"), [(100, 0), (12, 6), (5, 3), (2, 1)])
def test_the_micro_batch_is_the_first_half_that_fits(most: int, expected: int) -> None:
    network = Hungry(most)
    train = fitting(network, CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD)
    assert train.global_batch == 12
    assert train.micro_batch == (0 if most >= 12 else expected)
    assert all(parameter.grad is None for parameter in network.parameters())


class Normed(Network):
    """A network with PyTorch's own batch norm, which moves in every forward pass, and dropout, which draws."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.batch_norm = nn.BatchNorm1d(33)
        self.seen: list[tuple[bool, torch.dtype, torch.dtype]] = []

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        dtype = self.first.weight.dtype
        normed = self.batch_norm(inputs["points"].flatten(1).to(dtype))
        dropped = nn.functional.dropout(normed, 0.5, self.training).to(dtype)
        answer = super().forward({"points": dropped.view(len(dropped), 11, 3)}, lengths)
        self.seen.append((self.training, dtype, answer["label"].dtype))
        return answer


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("stem", "fp32"), ("stem", "bf16"), ("stem", "fp16"), ("batch_norm", "fp32"), ("batch_norm", "bf16")],
)
def test_a_trial_leaves_no_trace(kind: str, precision: str) -> None:
    network = Perceiver(CONFIG, seed=0) if kind == "stem" else Normed()
    goal, batch, size = (GOAL, images(0), GLOBAL_BATCH) if kind == "stem" else (CLASSES, whole_batch(0), 16)
    gradient = torch.ones_like(next(network.parameters()))
    next(network.parameters()).grad = gradient
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    places = {name: parameter.data_ptr() for name, parameter in network.named_parameters()}
    random = torch.get_rng_state()
    fitting(network, goal, batch, TrainConfig(global_batch=size, precision=precision), WORLD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert {name: parameter.data_ptr() for name, parameter in network.named_parameters()} == places
    gradients = [parameter.grad for parameter in network.parameters()]
    assert gradients[0] is gradient
    assert gradients[1:] == [None] * (len(gradients) - 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert network.training
    if isinstance(network, Perceiver):
        # Its statistics do not wait for the end of a batch.
        network.settle(is_kept=True)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("precision", "answers"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_trial_computes_as_the_step_does(world: World, precision: str, answers: torch.dtype) -> None:
    network = Normed()
    train = TrainConfig(global_batch=16, precision=precision, steps=2)
    fitting(network, CLASSES, whole_batch(0), train, WORLD)
    trained = Engine(network, CLASSES, optimizer=OPTIMIZER, train=train, world=world)
    trained.step(whole_batch(0))
    trained.close()
    trial, step = network.seen
    assert trial == step == (True, torch.float32, answers)


def test_a_trial_in_fp16_has_weights_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    # No step to compare with: DeepSpeed has no fp16 on a CPU.
    seen: list[torch.dtype] = []
    forward = Network.forward

    def watched(self: Network, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.extend((self.first.weight.dtype, self.offset.dtype))
        return forward(self, inputs, lengths)

    monkeypatch.setattr(Network, "forward", watched)
    fitting(Network(0), CLASSES, whole_batch(0), TrainConfig(global_batch=16, precision="fp16"), WORLD)
    assert seen == [torch.float16, torch.float32]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_after_a_trial_is_the_run_without_one_to_the_last_bit(world: World, precision: str) -> None:
    told = []
    for is_tried in (False, True):
        network = Perceiver(CONFIG, seed=0)
        train = TrainConfig(global_batch=GLOBAL_BATCH, precision=precision, steps=4)
        if is_tried:
            fitting(network, GOAL, images(0), train, WORLD)
        trained = Engine(network, GOAL, optimizer=OPTIMIZER, train=train, world=world)
        losses = [trained.step(images(step)).loss for step in range(2)]
        tensors = {(kind, name): t.clone() for kind, of in trained.snapshot().items() for name, t in of.items()}
        told.append((losses, tensors, trained.progress(), torch.get_rng_state()))
        trained.close()
    (losses, tensors, progress, random), tried = told
    assert losses == tried[0]
    assert all(torch.equal(tensor, tried[1][key]) for key, tensor in tensors.items())
    assert (progress, random.tolist()) == (tried[2], tried[3].tolist())


@pytest.mark.slow
def test_what_a_trial_compiled_the_step_does_not_compile_again(run_ranks: Callable[..., list]) -> None:
    [[by_trial, by_step]] = run_ranks("trial", 1)
    assert by_trial > 0
    assert by_step == 0


def test_what_has_no_deterministic_form_is_refused_before_the_run_costs_anything() -> None:
    class Scattered(Network):
        def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
            raise RuntimeError("grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you")

    with pytest.raises(ValueError, match=r"grid_sampler_2d_backward_cuda has no deterministic form"):
        fitting(Scattered(0), CLASSES, whole_batch(0), TrainConfig(global_batch=16), WORLD)


def test_a_single_sample_that_does_not_fit_is_refused_with_remedies() -> None:
    with pytest.raises(ValueError, match="activation_checkpointing"):
        fitting(Hungry(0), CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD)


def test_what_does_not_fit_on_one_rank_is_cut_on_all() -> None:
    def rank(world: ThreadWorld) -> int:
        share = whole_batch(0, 12).micro_batches(2)[world.rank]
        network = Hungry(3 if world.rank else 100)
        return fitting(network, CLASSES, share, TrainConfig(global_batch=12), world).micro_batch

    assert on_ranks(2, rank) == [3, 3]


@pytest.mark.parametrize(("beside", "numbers"), [({}, 4), ({"beside": 0}, 2), ({"beside": 3}, 5)])
def test_a_trial_is_made_beside_as_much_memory_as_the_state_will_take(
    monkeypatch: pytest.MonkeyPatch, beside: dict[str, int], numbers: int
) -> None:
    taken: list[tuple[int, object]] = []
    empty = torch.empty

    def noted(*shape: int, **options: object) -> Tensor:
        if options.get("dtype") == torch.uint8:
            taken.append((*shape, options.get("device")))
        return empty(*shape, **options)

    monkeypatch.setattr("trainer.engine.memory.torch.empty", noted)
    network = Network(0)
    fitting(network, CLASSES, whole_batch(0), TrainConfig(global_batch=16), WORLD, **beside)
    # Weight and gradient, and the numbers beside each, of 4 bytes.
    assert taken == [(4 * numbers * sum(parameter.numel() for parameter in network.parameters()), WORLD.device)]


def test_on_a_gpu_a_trial_keeps_the_random_numbers_of_that_one_and_leaves_neither_memory_nor_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[tuple[str, object]] = []

    @contextmanager
    def forked(**options: object) -> Iterator[None]:
        done.append(("fork", options))
        yield

    monkeypatch.setattr("trainer.engine.memory._try", lambda *_: done.append(("try", None)))
    monkeypatch.setattr(torch.random, "fork_rng", forked)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append(("empty", None)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append(("peak", device)))
    # Nothing is moved: there is no such device here.
    for part in (Network, Batch):
        monkeypatch.setattr(part, "to", lambda self, _: self)
    gpu = torch.device("cuda", 3)
    fitting(Network(0), CLASSES, whole_batch(0), TrainConfig(global_batch=16), World(0, 1, 0, gpu))
    assert done == [("fork", {"devices": [3]}), ("try", None), ("empty", None), ("peak", gpu)]


@pytest.mark.parametrize(("share", "halves"), [(12, [12, 6, 3, 1]), (16, [16, 8, 4, 2, 1]), (15, [15, 5, 1])])
def test_a_micro_batch_is_the_largest_part_that_is_at_most_a_half(
    monkeypatch: pytest.MonkeyPatch, share: int, halves: list[int]
) -> None:
    tried: list[int] = []
    monkeypatch.setattr("trainer.engine.memory._fits", lambda *given: tried.append(share // given[4]))
    with pytest.raises(ValueError, match="one sample a micro-batch does not fit"):
        fitting(Network(0), CLASSES, whole_batch(0, share), TrainConfig(global_batch=share), WORLD)
    assert tried == halves


def test_a_sample_that_fits_alone_is_trained_on_alone() -> None:
    assert fitting(Hungry(1), CLASSES, whole_batch(0, 12), TrainConfig(global_batch=12), WORLD).micro_batch == 1
    given = TrainConfig(global_batch=12, micro_batch=4)
    found = fitting(Hungry(4), CLASSES, whole_batch(0, 12), given, WORLD)
    assert found == replace(given, precision="fp32")
    assert fitting(Hungry(3), CLASSES, whole_batch(0, 12), given, WORLD).micro_batch == 2
