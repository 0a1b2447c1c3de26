"""A network of a user's own is served as the Perceiver is: same inputs, same answers, weights from the seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from model.budget.activation_memory import activation_bytes
from model.budget.counting import measured
from model.budget.flops import network_cost, total
from model.budget.plan import plan
from model.budget.step_cost import StepWork, step_work
from model.config.custom_network import CustomNetwork
from model.config.perceiver import PerceiverConfig
from model.custom import CustomModule, answer_shapes, empty_batch, loaded_network, new_network
from model.modalities.array import ArrayInput
from model.modalities.audio import AudioInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.masked import MaskedOutput
from model.outputs.output import Output
from model.outputs.points import PointsOutput
from model.outputs.value import ValueOutput
from model.perceiver import Perceiver

LABEL: dict[str, Output] = {"digit": LabelOutput(num_classes=3)}


class Flat(nn.Module):
    """One linear layer over all pixels, with what a test wants in between."""

    def __init__(self, inner: nn.Module | None = None, answer: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.inner, self.logits, self.answer = inner or nn.Identity(), nn.Linear(12, 3), answer

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        return {"digit": self.answer(self.logits(self.inner(inputs["photo"].flatten(1).float() / 255)))}


@dataclass(frozen=True)
class Own(CustomNetwork):
    make: Callable[[], nn.Module] = Flat
    kind: Literal["own"] = "own"

    def module(self, inputs: Mapping[str, Input], outputs: Mapping[str, Output]) -> nn.Module:
        return self.make()


def config(
    make: Callable[[], nn.Module] = Flat,
    outputs: Mapping[str, Output] = LABEL,
    **more: Any,  # noqa: ANN401  # fields
) -> PerceiverConfig:
    return PerceiverConfig(
        inputs={"photo": ImageInput(height=2, width=2)}, outputs=dict(outputs), network=Own(make), **more
    )


def photos(number: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"photo": torch.randint(0, 256, (number, 2, 2, 3), dtype=torch.uint8, generator=generator)}


def custom(make: Callable[[], nn.Module] = Flat, **more: Any) -> CustomModule:  # noqa: ANN401  # fields
    network = new_network(config(make, **more), seed=0)
    assert isinstance(network, CustomModule)
    return network


def test_its_weights_follow_from_the_seed_and_move_no_other_random_number() -> None:
    torch.manual_seed(1)
    one = custom().state_dict()
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(1)))
    assert all(torch.equal(one[name], tensor) for name, tensor in custom().state_dict().items())
    assert not torch.equal(
        one["network.logits.weight"], new_network(config(), seed=1).state_dict()["network.logits.weight"]
    )


def test_it_answers_as_the_module_does_and_a_perceiver_stays_one() -> None:
    network = custom()
    assert torch.equal(network(photos())["digit"], network.network(photos())["digit"])
    assert isinstance(new_network(replace(config(), network=None, num_latents=2, latent_width=8), seed=0), Perceiver)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda logits: logits[:, :2], r"Flat\.forward answered torch\.float32 \(4, 2\) for digit, .* \(4, 3\)"),
        (lambda logits: logits.mean(0, keepdim=True), r"answered torch\.float32 \(1, 3\) for digit"),
        (lambda logits: logits.argmax(1), r"answered torch\.int64 \(4,\) for digit, expected floating point"),
        (lambda _: None, "answered NoneType for digit"),
    ],
)
def test_an_answer_of_another_shape_is_refused_by_name(answer: Callable[[Tensor], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        custom(lambda: Flat(answer=answer))(photos())


def test_an_answer_without_a_gradient_is_refused_in_training_alone() -> None:
    network = new_network(config(lambda: Flat(answer=Tensor.detach)), seed=0)
    photo = {"photo": torch.zeros(2, 2, 2, 3, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"Flat\.forward answered what no trained parameter takes part in"):
        network.train()(photo)
    assert network.eval()(photo)["digit"].shape == (2, 3)


def test_a_missing_and_a_surplus_answer_are_refused() -> None:
    two = {**LABEL, "other": LabelOutput(num_classes=2)}
    with pytest.raises(ValueError, match=r"returned \['digit'\], expected a dict of digit, other"):
        custom(outputs=two)(photos())


def test_inputs_are_checked_before_the_module_sees_them() -> None:
    with pytest.raises(ValueError, match=r"inputs\.photo: expected \(batch, 2, 2, 3\), got \(4, 3, 2, 3\)"):
        custom()({"photo": torch.zeros(4, 3, 2, 3, dtype=torch.uint8)})


class WithLengths(Flat):
    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        self.seen = lengths
        return {"digit": super().forward(inputs)["digit"] * (lengths["photo"] > 0)[:, None]}


def test_a_module_that_names_lengths_gets_them_and_all_entries_where_none_are_said() -> None:
    network = custom(WithLengths)
    network(photos(), {"photo": torch.tensor([2, 0, 2, 2])})
    assert network.network.seen["photo"].tolist() == [2, 0, 2, 2]
    network(photos())
    assert network.network.seen["photo"].tolist() == [2, 2, 2, 2]


def test_a_module_that_cannot_know_what_a_sample_lacks_is_refused() -> None:
    two = {"photo": ImageInput(height=2, width=2), "sound": AudioInput(num_samples=8, patch=4)}
    with pytest.raises(ValueError, match="must take `lengths`, which say what inputs a sample lacks"):
        new_network(replace(config(), inputs=two), seed=0)
    new_network(replace(config(WithLengths), inputs=two), seed=0)
    views = {"joint": EmbeddingOutput(pair=("photo", "sound"), width=4)}
    with pytest.raises(ValueError, match="must take `lengths`"):
        new_network(replace(config(outputs=views), inputs=two), seed=0)


def test_a_module_that_would_see_what_is_hidden_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must take `hidden`, the tokens that model\.outputs\.photo hides"):
        custom(outputs={"photo": MaskedOutput(target="photo")})


class Same(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"photo": self.scale * inputs["photo"].float()}


def test_of_a_whole_grid_the_cells_that_training_asks_for_are_taken() -> None:
    network = custom(Same, outputs={"photo": GridOutput(target="photo")})
    whole = network(photos())["photo"]
    assert whole.shape == (4, 2, 2, 3)
    cells = network(photos(), points={"photo": torch.tensor([3, 0])})["photo"]
    assert torch.equal(cells, whole.flatten(1, 2)[:, [3, 0]])


def test_the_shapes_of_answers_are_those_of_the_outputs_whatever_the_sizes_of_the_inputs() -> None:
    inputs: dict[str, Input] = {
        "photo": ImageInput(height=2, width=3),
        "cloud": ArrayInput(shape=(5, 2), num_axes=3),
    }
    outputs = {
        "digit": LabelOutput(num_classes=3),
        "photo": MaskedOutput(),
        "field": PointsOutput(target="cloud", coordinates="cloud.coordinates", num_axes=3, num_channels=2),
        "beyond": PointsOutput(target="cloud", coordinates="at", num_points=4),
    }
    found = replace(config(outputs=outputs), inputs=inputs)
    assert answer_shapes(found) == {"beyond": (4, 1), "digit": (3,), "field": (5, 2), "photo": (2, 3, 3)}
    batch = {name: ((*each.shape,), each.dtype) for name, each in empty_batch(found, 7).items()}
    assert batch == {
        "photo": ((7, 2, 3, 3), torch.uint8),
        "cloud": ((7, 5, 2), torch.float32),
        "cloud.coordinates": ((7, 5, 3), torch.float32),
        "at": ((7, 4, 2), torch.float32),
    }


class TakesAll(nn.Module):
    """Answers what it is told to, and remembers what it is given."""

    def __init__(self, **answers: Tensor) -> None:
        super().__init__()
        self.scale, self.answers = nn.Parameter(torch.ones(1)), answers
        self.given: dict[str, Any] = {}

    def forward(self, inputs: dict[str, Tensor], **given: Any) -> dict[str, Tensor]:  # noqa: ANN401
        self.given = given
        return {name: self.scale * answer for name, answer in self.answers.items()}


def test_a_module_that_takes_all_is_given_all() -> None:
    outputs = {"digit": LabelOutput(num_classes=3), "photo": GridOutput(target="photo")}
    inputs: dict[str, Input] = {"photo": ImageInput(height=2, width=2), "class": LabelInput(num_classes=4)}
    batch = photos(2) | {"class": torch.tensor([1, 3])}
    module = TakesAll(digit=torch.zeros(2, 3), photo=torch.zeros(2, 2, 2, 3))
    network = new_network(replace(config(lambda: module, outputs), inputs=inputs), seed=0)
    assert network(batch).keys() == outputs.keys()
    lengths = {name: each.tolist() for name, each in module.given.pop("lengths").items()}
    assert (lengths, module.given) == ({"class": [1, 1], "photo": [2, 2]}, {"hidden": {}, "points": {}})
    assert network(batch, outputs=["photo"]).keys() == {"photo"}
    hidden, points = {"class": torch.tensor([[True], [False]])}, {"photo": torch.tensor([0])}
    module.answers["photo"] = torch.zeros(2, 1, 3)
    # It answers the cells that are asked for by itself.
    assert network(batch, hidden=hidden, points=points)["photo"].shape == (2, 1, 3)
    assert (module.given["hidden"], module.given["points"]) == (hidden, points)
    # All else is looked at as ever.
    module.answers["digit"] = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"answered torch\.float32 \(2, 4\) for digit, expected .* \(2, 3\)"):
        network(batch, points=points)


def test_an_answer_may_be_of_other_places() -> None:
    larger = custom(lambda: TakesAll(photo=torch.zeros(4, 5, 7, 3)), outputs={"photo": GridOutput(target="photo")})
    assert larger(photos())["photo"].shape == (4, 5, 7, 3)


@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (4, 2, 2, 1), (4, 2, 3)])
def test_an_answer_of_other_samples_channels_or_axes_is_refused(shape: tuple[int, ...]) -> None:
    network = custom(lambda: TakesAll(photo=torch.zeros(shape)), outputs={"photo": GridOutput(target="photo")})
    with pytest.raises(ValueError, match=r"answered torch\.float32 .* for photo"):
        network(photos())


def test_weights_are_loaded_into_the_network_that_they_are_of() -> None:
    network = custom()
    loaded = loaded_network(network.config, network.state_dict(), seed=1)
    assert isinstance(loaded, CustomModule)
    assert all(torch.equal(loaded.state_dict()[name], each) for name, each in network.state_dict().items())
    plain = replace(config(), network=None, num_latents=2, latent_width=8)
    built = Perceiver(plain, seed=0)
    again = loaded_network(plain, built.state_dict(), seed=1)
    assert isinstance(again, Perceiver)
    assert all(torch.equal(again.state_dict()[name], each) for name, each in built.state_dict().items())
    # Shapes are compared before anything of the sizes that a configuration says is made.
    with pytest.raises(ValueError, match=r"encoder\.latents\.weight: expected \(1048576, 8\), got \(2, 8\)"):
        loaded_network(replace(plain, num_latents=2**20), built.state_dict(), seed=0)


def test_what_is_drawn_in_training_follows_from_seed_step_and_rank() -> None:
    network = custom(lambda: Flat(nn.Dropout(0.5))).train()

    def drawn(step: int, rank: int) -> Tensor:
        network.begin(step, rank)
        answer: Tensor = network(photos())["digit"]
        return answer

    with torch.random.fork_rng(devices=[]):
        assert torch.equal(drawn(1, 0), drawn(1, 0))
        assert not torch.equal(drawn(1, 0), drawn(2, 0))
        assert not torch.equal(drawn(1, 0), drawn(1, 1))


def test_running_statistics_are_averaged_over_ranks_and_given_back_where_a_step_is_skipped() -> None:
    network = custom(lambda: Flat(nn.BatchNorm1d(12))).train()
    norm = network.network.inner
    assert isinstance(norm, nn.BatchNorm1d)
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    # Two ranks, the other of which has statistics of 0.
    network.observe(photos(), {}, lambda tensor: 2 * tensor if tensor.dim() == 0 else tensor)
    network(photos())
    moved = norm.running_mean.clone()  # type: ignore[union-attr]
    network.settle(is_kept=True)
    assert torch.equal(norm.running_mean, moved / 2)  # type: ignore[arg-type]
    assert not torch.equal(moved, before)
    network.observe(photos(), {}, Tensor.clone)
    network(photos())
    network.settle(is_kept=torch.tensor(False))
    assert torch.equal(norm.running_mean, moved / 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_frozen_batch_norm_keeps_its_running_statistics_and_normalises_with_them(ranks: int) -> None:
    network = custom(lambda: Flat(nn.BatchNorm1d(12))).train()
    norm = network.network.inner
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    # A third of 0.1 times 3 is another number than 0.1.
    norm.running_mean.fill_(0.1)
    norm.weight.requires_grad_(False)
    evaluated = network.eval()(photos())["digit"]
    network.train()
    network.observe(photos(), {}, lambda tensor: tensor * ranks)
    trained = network(photos())["digit"]
    network.settle(is_kept=True)
    assert torch.equal(trained, evaluated)
    assert torch.equal(norm.running_mean, torch.full((12,), 0.1))
    # From the step on that trains its scale, it is a batch norm as any other.
    norm.weight.requires_grad_(True)
    network.observe(photos(), {}, lambda tensor: tensor * ranks)
    assert not torch.equal(network(photos())["digit"], evaluated)
    assert not torch.equal(norm.running_mean, torch.full((12,), 0.1))


def test_a_network_of_half_precision_takes_inputs_that_are_not() -> None:
    answer = custom().half()(photos())["digit"]
    assert answer.dtype == torch.float16


class Looking(Flat):
    """Reads a value, which tensors without data do not have."""

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        return super().forward(inputs) if float(inputs["photo"].float().sum()) >= 0 else {}


@pytest.mark.parametrize("make", [Flat, Looking])
def test_the_plan_counts_its_parameters_products_and_activations(make: Callable[[], nn.Module]) -> None:
    found = total(network_cost(config(make)))
    assert (found.parameters, found.flops) == (12 * 3 + 3, 2 * 12 * 3)
    # The linear layer keeps its input; the pictures are there anyway.
    assert activation_bytes(config(make)) == 12 * 4
    planned = plan(config(make))
    assert (list(planned.policies), planned.form, planned.attention) == (["none"], None, ())
    # The gradient of the weights is one product as large; the pictures need none.
    trained = measured(lambda: new_network(config(make), seed=0), config(make), trains=True)
    assert trained.flops == 2 * found.flops


class Joint(nn.Module):
    """A linear layer over each of two inputs, of which a pass has one and zeros for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.heard = nn.Linear(12, 4), nn.Linear(8, 4)

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"joint": self.seen(inputs["photo"].flatten(1).float()) + self.heard(inputs["sound"] * 2)}


def test_a_step_of_a_plug_ins_network_is_its_products_and_what_it_keeps_written_and_read() -> None:
    assert step_work(config(), "fp32") == StepWork(3.0 * 2 * 12 * 3, 0.0, 0.0, 2.0 * 12 * 4)
    two = {"photo": ImageInput(height=2, width=2), "sound": AudioInput(num_samples=8, patch=4)}
    pair = {"joint": EmbeddingOutput(pair=("photo", "sound"), width=4)}
    network = replace(config(Joint, pair), inputs=two)
    # Two passes, before each of which one without gradients collects the answers of all ranks.
    each_pass, kept = 2 * (12 + 8) * 4, (12 + 8) * 4
    assert total(network_cost(network)).flops == 2 * each_pass
    assert step_work(network, "fp32") == StepWork(4.0 * 2 * each_pass, 0.0, 0.0, 2.0 * 2 * kept)


class OwnLayer(nn.Module):
    """A linear layer; `looks` reads a value, which no tensor without data has."""

    def __init__(self, inputs: int, outputs: int, *, looks: bool) -> None:
        super().__init__()
        self.layer, self.looks = nn.Linear(inputs, outputs), looks

    def forward(self, values: Tensor, *_: object) -> Tensor:
        assert not self.looks or values.sum().item() == 0
        return self.layer(values)


@dataclass(frozen=True)
class OwnInput(Input):
    """Five tokens, each a linear function of three numbers."""

    modality: Literal["own"] = "own"
    looks: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (5, 3)

    @property
    def grid(self) -> tuple[int, ...]:
        return (5,)

    @property
    def content_width(self) -> int:
        return 7

    def adapter(self) -> nn.Module:
        return OwnLayer(3, 7, looks=self.looks)


@dataclass(frozen=True, kw_only=True)
class OwnOutput(ValueOutput):
    """A number for each latent."""

    def head(self, width: int, network: Any, embedding: Any) -> nn.Module:  # noqa: ANN401
        return OwnLayer(width, 1, looks=True)


@pytest.mark.parametrize("looks", [False, True])
def test_the_plan_counts_modules_of_a_plug_in_that_say_no_cost(looks: bool) -> None:
    sizes = {"num_latents": 4, "latent_width": 16, "num_cross_attends": 1, "num_blocks": 1, "layers_per_block": 1}
    network = PerceiverConfig(inputs={"x": OwnInput(looks=looks)}, outputs={"y": OwnOutput(num_values=1)}, **sizes)
    found = network_cost(network)
    assert total(found).parameters == sum(each.numel() for each in Perceiver(network, seed=0).parameters())
    assert found["inputs"].flops == 5 * 2 * 3 * 7
    assert found["decoder"].flops == 4 * 2 * 16


@pytest.mark.parametrize(
    ("key", "value"), [("num_latents", 8), ("mask_tokens", True), ("activation_checkpointing", "blocks")]
)
def test_a_key_of_the_perceiver_beside_it_is_refused(key: str, value: object) -> None:
    problems = dict(config(**{key: value}).problems())
    assert problems == {key: "is a key of the Perceiver, and model.network is own; leave it out"}


def test_compilation_of_a_perceivers_layers_is_refused() -> None:
    assert [key for key, _ in config(compile=True).problems()] == ["compile"]
    assert list(config(compile=False).problems()) == []
