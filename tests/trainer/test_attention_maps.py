"""Attention maps are what the network attends with: shares that add up to 1 over what is there."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from model.attention.layers import CrossAttend
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.evaluation.attention_maps import AttentionMap, attention_maps, draw, readable

CONFIG = PerceiverConfig(
    inputs={"image": ImageInput(height=6, width=4), "text": TextInput(max_tokens=5, embedding_width=16)},
    outputs={"label": LabelOutput(num_classes=3)},
    num_latents=3,
    latent_width=16,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=1,
)
INPUTS = {
    "image": torch.randint(0, 256, (2, 6, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
    "text": torch.full((2, 5), 70, dtype=torch.int16),
}
LENGTHS = {"image": torch.tensor([6, 6]), "text": torch.tensor([3, 0])}
# The last layer starts at zero, which would hide every difference.
WEIGHTS = {
    name: tensor + 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))
    for name, tensor in Perceiver(CONFIG, seed=1).state_dict().items()
}


def test_shares_add_up_over_all_modalities_and_hidden_tokens_get_none(tmp_path: Path) -> None:
    network = readable(CONFIG, WEIGHTS)
    maps = attention_maps(network, INPUTS, LENGTHS)
    assert [of_layer.cross_attend for of_layer in maps] == [0, 1]
    for of_layer in maps:
        assert of_layer.weights["image"].shape == (2, 3, 6, 4)
        total = of_layer.weights["image"].sum((2, 3)) + of_layer.weights["text"].sum(2)
        torch.testing.assert_close(total, torch.ones(2, 3))
        assert (of_layer.weights["text"][0, :, 3:] == 0).all()
        assert (of_layer.weights["text"][1] == 0).all()
    assert not torch.equal(maps[0].weights["image"], maps[1].weights["image"])
    for modality, values in INPUTS.items():
        draw(maps, modality, 0, values[0].numpy(), tmp_path / f"{modality}.png")
        assert (tmp_path / f"{modality}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
def test_the_weights_are_those_by_which_the_layer_sums_its_values(is_stream: bool, rotary: bool) -> None:
    text = TextInput(max_tokens=6, embedding_width=16)
    config = replace(
        CONFIG,
        inputs={"text": text},
        outputs={"text": AutoregressiveOutput()} if is_stream else CONFIG.outputs,
        cross_attend=AttentionConfig(rotary=rotary),
        num_cross_attends=1,
    )
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: tensor + torch.randn(tensor.shape, generator=generator)
        for name, tensor in Perceiver(config, seed=0).state_dict().items()
    }
    network = readable(config, weights)
    (layer,) = (each for each in network.encoder.cross_attends if isinstance(each, CrossAttend))
    values, sums = list[Tensor](), list[Tensor]()
    layer.register_forward_pre_hook(lambda _, given: values.append(given[2]))
    layer.attention.output.register_forward_pre_hook(lambda _, given: sums.append(given[0]))
    ids = torch.randint(6, 262, (2, 6), generator=generator)
    (found,) = attention_maps(network, {"text": ids}, {"text": torch.tensor([6, 4])})
    share = found.weights["text"]
    if is_stream:
        # A place has the token before it; what is left of each latent's sum fell on the first token.
        share = torch.cat([1 - share.sum(dim=-1, keepdim=True), share[..., :-1]], dim=-1)
    torch.testing.assert_close(share @ values[0][:, 0], sums[0])


def test_a_sample_without_anything_to_look_at_looks_at_nothing() -> None:
    nothing = {name: torch.tensor([0, length[0]]) for name, length in LENGTHS.items()}
    for of_layer in attention_maps(readable(CONFIG, WEIGHTS), INPUTS, nothing):
        assert all((weights[0] == 0).all() for weights in of_layer.weights.values())
        assert sum(float(weights[1].sum()) for weights in of_layer.weights.values()) == pytest.approx(3)


def drawn(grid: tuple[int, ...], values: np.ndarray, path: Path) -> np.ndarray:
    """Return what is black in the picture of one latent that looks at everything alike."""
    draw([AttentionMap(0, {"some": torch.zeros(1, 1, *grid)})], "some", 0, values, path)
    picture = matplotlib.image.imread(path)[..., :3].sum(-1)
    # The right half: the weights, without their frame and title.
    return picture[:, picture.shape[1] // 2 :] < 0.1


def test_a_picture_keeps_its_shape_and_a_row_fills_its_place(tmp_path: Path) -> None:
    flat = drawn((2, 16), np.zeros((2, 16, 3), np.uint8), tmp_path / "flat.png")
    row = drawn((32,), np.zeros(32), tmp_path / "row.png")
    assert 0 < flat.mean() < 0.3 < row.mean()


@pytest.mark.parametrize("num_channels", [1, 2, 5])
def test_a_picture_of_any_number_of_channels_is_drawn_and_a_grey_one_is_grey(tmp_path: Path, num_channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 4, num_channels), dtype=np.uint8)
    draw([AttentionMap(0, {"some": torch.zeros(1, 1, 4, 4)})], "some", 0, values, tmp_path / "some.png")
    picture = matplotlib.image.imread(tmp_path / "some.png")[..., :3]
    left = picture[:, : picture.shape[1] // 2]
    if num_channels == 1:
        assert np.allclose(left, left[..., :1])
        assert len(np.unique(left)) > 10


def test_of_a_clip_the_middle_frame_is_drawn(tmp_path: Path) -> None:
    clip = np.zeros((5, 4, 4, 3), np.uint8)
    clip[2] = 255
    for name, values in (("clip", clip), ("frame", clip[2])):
        drawn((5, 4, 4) if name == "clip" else (4, 4), values, tmp_path / f"{name}.png")
    assert (tmp_path / "clip.png").read_bytes() == (tmp_path / "frame.png").read_bytes()


class Kept(Figure):
    """A figure that is looked at after it was saved."""

    made: ClassVar[list["Kept"]] = []

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.made.append(self)


@pytest.mark.parametrize(("grid", "shown"), [((4, 6), (4, 6)), ((5, 4, 6), (4, 6)), ((24,), (1, 24))])
def test_each_cross_attend_is_a_row_of_the_input_and_of_the_weights_of_some_latents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: tuple[int, ...], shown: tuple[int, int]
) -> None:
    monkeypatch.setattr("trainer.evaluation.attention_maps.Figure", Kept)
    weights = torch.rand(2, 10, *grid, generator=torch.Generator().manual_seed(0))
    maps = [AttentionMap(index, {"some": weights + index}) for index in (0, 3)]
    sizes: list[tuple[float, float]] = []
    for num_latents in (3, 10):
        some = [AttentionMap(each.cross_attend, {"some": each.weights["some"][:, :num_latents]}) for each in maps]
        draw(some, "some", 1, np.linspace(0, 1, 5), tmp_path / "some.png")
        figure = Kept.made.pop()
        cells = np.array(figure.axes).reshape(2, 1 + min(num_latents, 8))
        # Cells are as large whatever their number.
        sizes.append((figure.get_figwidth() / cells.shape[1], figure.get_figheight() / len(cells)))
        for (first, *row), of_layer in zip(cells, maps, strict=True):
            assert first.get_title() == "input"
            np.testing.assert_array_equal(first.lines[0].get_ydata(), np.linspace(0, 1, 5))
            for latent, cell in enumerate(row):
                assert cell.get_title() == f"cross {of_layer.cross_attend}, latent {latent}"
                share = of_layer.weights["some"][1, latent]
                # Of a clip the middle frame.
                np.testing.assert_array_equal(
                    cell.images[0].get_array(), (share[2] if len(grid) == 3 else share).view(shown)
                )
                assert cell.images[0].get_cmap().name == "gray"
                assert (cell.get_aspect() == "auto") == (len(grid) == 1)
        assert not any(len(cell.get_xticks()) + len(cell.get_yticks()) for cell in cells.ravel())
    assert sizes[0] == pytest.approx(sizes[1])
    assert min(sizes[0]) > 1


def test_a_map_tells_which_tokens_change_the_answer() -> None:
    network = readable(CONFIG, WEIGHTS)
    with torch.no_grad():
        answer = network(INPUTS, LENGTHS)["label"]
        changed = {**INPUTS, "text": INPUTS["text"].clone()}
        changed["text"][:, 3:] = 99
        # Only tokens with a share of 0 were changed.
        torch.testing.assert_close(network(changed, LENGTHS)["label"], answer)
        changed["text"][0, 0] = 99
        assert not torch.equal(network(changed, LENGTHS)["label"], answer)
