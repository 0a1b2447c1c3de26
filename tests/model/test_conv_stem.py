"""The convolution before tokens against PyTorch's, whole and in parts, and its padding."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import model.modalities.adapters.pixels
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.adapters.conv_stem import ConvStem, _shown, same_padding
from model.modalities.adapters.pixels import FlowAdapter, ImageAdapter, StemAdapter
from model.modalities.audio import AudioInput
from model.modalities.byte_array import Inputs
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.parameters import draw_parameters

F64 = torch.float64
# Sums of some thousand float64 terms in another order.
TOLERANCE = 1e-10
FEW = PositionsConfig(num_bands=2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def stem(channels: int = 2) -> ConvStem:
    built = ConvStem(channels).double()
    with torch.no_grad():
        for index, parameter in enumerate(built.parameters()):
            parameter.copy_(0.5 * random(*parameter.shape, seed=index) + (parameter.dim() == 1))
    return built


class PlainStem(nn.Module):
    """The same weights in PyTorch's own modules."""

    def __init__(self, built: ConvStem) -> None:
        super().__init__()
        self.convolution, self.norm = copy.deepcopy(built.convolution), nn.BatchNorm2d(64).double()
        self.norm.load_state_dict(built.norm.state_dict())

    def forward(self, pixels: Tensor) -> Tensor:
        # Of eight rows and columns: two before and three after, none before the pool and one after.
        padded = functional.pad(pixels.permute(0, 3, 1, 2), (2, 3, 2, 3))
        features = functional.relu(self.norm(self.convolution(padded)))
        return functional.max_pool2d(functional.pad(features, (0, 1, 0, 1)), 3, stride=2).permute(0, 2, 3, 1)


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.double().clone() for name, tensor in module.named_buffers()}


def assert_alike(found: ConvStem, expected: PlainStem) -> None:
    torch.testing.assert_close(gradients(found), gradients(expected), rtol=0, atol=TOLERANCE)
    # Their momentum is a float32.
    torch.testing.assert_close(statistics(found), statistics(expected), rtol=1e-6, atol=1e-6)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_batch_by_itself_is_normalised_as_pytorchs_batch_norm_does() -> None:
    found, upstream = stem(), random(3, 2, 2, 64, seed=9)
    expected = PlainStem(found)
    for step in range(3):
        pixels = random(3, 8, 8, 2, seed=step) * (1 + step) + step
        torch.testing.assert_close(found(pixels), expected(pixels), rtol=0, atol=TOLERANCE)
    for module in (found, expected):
        (module(random(3, 8, 8, 2)) * upstream).sum().backward()
    assert_alike(found, expected)
    found.eval()
    expected.eval()
    before = statistics(found)
    torch.testing.assert_close(found(random(1, 8, 8, 2)), expected(random(1, 8, 8, 2)), rtol=0, atol=1e-6)
    assert same(statistics(found), before)


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_micro_batches_of_an_observed_batch_give_what_the_whole_batch_gives(cut: int) -> None:
    found, pixels, upstream = stem(), random(5, 8, 8, 2), random(5, 2, 2, 64, seed=9)
    expected = PlainStem(found)
    (expected(pixels) * upstream).sum().backward()
    shown = torch.tensor([True, False, True, True, True, False, True])
    found.observe(found.sums(torch.cat([pixels[:1], pixels[:1] * 7, pixels[1:4], pixels[:1], pixels[4:]]), shown))
    before = statistics(found)
    for part, wanted in zip(pixels.split(cut), upstream.split(cut), strict=True):
        (found(part) * wanted).sum().backward()
    # Nothing moves before the batch is at its end.
    assert same(statistics(found), before)
    found.settle(is_kept=True)
    assert_alike(found, expected)
    # The next batch is its own again.
    torch.testing.assert_close(found(pixels + 1), expected(pixels + 1), rtol=0, atol=TOLERANCE)
    assert_alike(found, expected)


def test_a_batch_that_is_not_kept_and_one_without_images_move_nothing() -> None:
    found, pixels = stem(), random(2, 8, 8, 2)
    before = statistics(found)
    found.observe(found.sums(pixels))
    found(pixels)
    found.settle(is_kept=False)
    found.settle(is_kept=True)
    assert same(statistics(found), before)
    found.observe(found.sums(pixels, torch.zeros(2, dtype=torch.bool)))
    assert found(pixels).isfinite().all()
    found.settle(is_kept=True)
    assert same(statistics(found), before)


def test_one_value_has_no_variance_and_its_statistics_are_finite() -> None:
    found = stem()
    before = statistics(found)
    assert found(random(1, 1, 1, 2)).isfinite().all()
    after = statistics(found)
    assert all(tensor.isfinite().all() for tensor in after.values())
    # It counts: both averages move, the one of variances towards 0.
    assert not any(torch.equal(after[name], before[name]) for name in before)


def test_sums_are_taken_in_full_precision_under_autocast_and_without_a_graph() -> None:
    found, pixels = stem(), random(2, 8, 8, 2).float().requires_grad_()
    expected = found.float().sums(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found.sums(pixels), expected)
    assert expected.dtype == F64
    assert not expected.requires_grad
    # Sixteen places of each of two images; beside its diagonal are the sums of what lies under the kernel.
    assert expected[-1, -1] == 32


@pytest.mark.parametrize(
    ("length", "side", "stride", "padding"),
    # TensorFlow's documentation of SAME: the odd one comes after.
    [
        (224, 7, 2, (2, 3)),
        (9, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (5, 3, 2, (1, 1)),
        (1, 7, 2, (3, 3)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_is_tensorflows(length: int, side: int, stride: int, padding: tuple[int, int]) -> None:
    assert same_padding(length, side, stride) == padding


@pytest.mark.parametrize("num_pixels", [1, 2 * 64, 2**18])
@pytest.mark.parametrize(
    "adapter",
    [
        ImageAdapter(ImageInput(height=8, width=8, num_channels=2, conv_stem=True, positions=FEW)),
        *(
            FlowAdapter(FlowInput(height=8, width=8, num_channels=2, conv_stem=True, separate_frames=apart))
            for apart in (False, True)
        ),
    ],
    ids=["image", "pair", "separate"],
)
def test_a_batch_is_observed_a_few_samples_at_a_time_and_summed_over_ranks(
    adapter: StemAdapter, num_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.modalities.adapters.pixels, "OBSERVED_PIXELS", num_pixels)
    frames = (2,) if isinstance(adapter, FlowAdapter) else ()
    pixels, shown = random(5, *frames, 8, 8, 2), torch.tensor([True, True, False, True, True])
    draw_parameters(adapter, 0)
    one, adapter = copy.deepcopy(adapter).double(), copy.deepcopy(adapter).double()
    # The other rank has the same samples.
    adapter.observe(pixels, shown, F64, lambda sums: 2 * sums)
    twice = torch.cat([pixels[shown], pixels[shown]])
    for built in (one, adapter):
        built.train()
    expected = one(twice, F64)[: len(pixels[shown])]
    torch.testing.assert_close(adapter(pixels[shown], F64), expected, rtol=0, atol=TOLERANCE)
    assert adapter.stem is not None
    assert one.stem is not None
    adapter.stem.settle(is_kept=True)
    torch.testing.assert_close(statistics(adapter.stem), statistics(one.stem), rtol=0, atol=TOLERANCE)


def test_a_frozen_norm_keeps_its_statistics_and_uses_them_in_training() -> None:
    built, pixels = stem(), random(3, 8, 8, 2)
    built.train()
    built.norm.requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in statistics(built).items()}
    built.observe(built.sums(pixels))
    answer = built(pixels)
    built.settle(is_kept=True)
    assert same(statistics(built), before)
    assert torch.equal(answer, built.eval()(pixels))


@pytest.mark.parametrize(("images", "side", "scale"), [(2, 1, 1.0), (3, 8, 1e-2)], ids=["few", "small"])
def test_few_values_and_small_ones_have_the_statistics_of_pytorchs_batch_norm(
    images: int, side: int, scale: float
) -> None:
    found, pixels = stem(), scale * random(images, side, side, 2)
    expected = PlainStem(found)
    padded = functional.pad(pixels.permute(0, 3, 1, 2), 2 * same_padding(side, 7, 2))
    features = functional.relu(expected.norm(expected.convolution(padded)))
    pooled = functional.max_pool2d(
        functional.pad(features, 2 * same_padding(features.shape[2], 3, 2)), 3, stride=2
    ).permute(0, 2, 3, 1)
    torch.testing.assert_close(found(pixels), pooled, rtol=0, atol=1e-9)
    # Their momentum is a float32.
    torch.testing.assert_close(statistics(found), statistics(expected), rtol=1e-6, atol=1e-9)


def test_the_mean_of_a_single_value_is_that_value() -> None:
    # PyTorch's batch norm refuses it, since it has no variance.
    found, pixels = stem(), random(1, 1, 1, 2)
    value = found.convolution(functional.pad(pixels.permute(0, 3, 1, 2), (3, 3, 3, 3))).flatten()
    found(pixels)
    torch.testing.assert_close(found.norm.get_buffer("running_mean"), 0.1 * value.detach(), rtol=0, atol=1e-6)


def test_images_that_are_there_are_chosen_by_a_mask_on_the_host() -> None:
    there = torch.empty(3, 4, 4, 1, device="meta")
    assert _shown(there, torch.tensor([True, False, True])).shape == (2, 4, 4, 1)
    assert _shown(there, torch.tensor([True] * 3)) is there
    here = random(3, 4, 4, 1)
    assert torch.equal(_shown(here, torch.tensor([True, False, True])), here[[0, 2]])


def test_a_network_of_half_precision_keeps_its_averages_in_float32() -> None:
    built = ConvStem(2)
    before = random(64).float()
    for name in ("running_mean", "running_var"):
        built.norm.get_buffer(name).copy_(before)
    for halves in (built.half(), built.bfloat16()):
        assert halves.norm.weight.dtype.itemsize == 2
        for name in ("running_mean", "running_var"):
            assert torch.equal(halves.norm.get_buffer(name), before)
    whole = built.double()
    for name in ("running_mean", "running_var"):
        assert torch.equal(whole.norm.get_buffer(name), before.double())
        assert whole.norm.get_buffer(name).dtype == F64


def test_a_network_observes_the_pictures_that_are_there() -> None:
    image = ImageInput(height=8, width=8, num_channels=2, conv_stem=True, positions=FEW)
    inputs = {"photo": image, "sound": AudioInput(num_samples=8, patch=4, positions=FEW)}
    built = Inputs(PerceiverConfig(inputs=inputs))
    sums: list[Tensor] = []

    def total(tensor: Tensor) -> Tensor:
        sums.append(tensor)
        return tensor

    photos, lengths = random(4, 8, 8, 2).float(), torch.tensor([0, 1, 8, 0])
    built.observe({"photo": photos}, {"photo": lengths}, torch.float32, total)
    (found,) = sums
    # A picture has four rows and four columns of places under the kernel; any row of it is enough.
    assert found[-1, -1] == 2 * 4 * 4
    stem_of: ConvStem = built.adapters["photo"].stem
    torch.testing.assert_close(found, stem_of.sums(photos[1:3]))
    before = statistics(stem_of)
    built.train()
    stem_of(photos)
    assert same(statistics(stem_of), before)
    built.settle(is_kept=False)
    assert same(statistics(stem_of), before)
