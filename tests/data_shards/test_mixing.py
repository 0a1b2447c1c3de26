import numpy as np
import pytest

from data_shards.modalities.mixup import mix_pairs
from data_shards.modalities.transform_config import MixupConfig


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, pair]) for pair in range(count)]


def batch(num_pairs: int, height: int = 12, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair the first image is all 0 and of class 0, the second all 200 and of class 1."""
    images = np.zeros((2 * num_pairs, height, width, 3), np.uint8)
    images[1::2] = 200
    return images, np.tile(np.eye(2, dtype=np.float32), (num_pairs, 1))


def test_mixup_blends_images_as_it_blends_labels() -> None:
    images, targets = batch(300)
    mix_pairs(images, targets, MixupConfig(mixup_alpha=0.2, cutmix_probability=0), iter(generators(300)))
    assert np.ptp(images, axis=(1, 2, 3)).max() == 0
    # Pixels are whole values of 200.
    np.testing.assert_allclose(images[:, 0, 0, 0] / 200, targets[:, 1], atol=0.5 / 200)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(targets[::2], targets[1::2, ::-1], atol=1e-6)
    # Beta(0.2, 0.2) lies near 0 and 1: its variance is 1 / (4 (2 * 0.2 + 1)) = 0.179.
    assert targets[::2, 0].var() == pytest.approx(0.179, abs=0.03)


def test_cutmix_exchanges_a_rectangle_and_labels_by_its_area() -> None:
    images, targets = batch(300)
    mix_pairs(images, targets, MixupConfig(cutmix_probability=1), iter(generators(300)))
    pasted = images[::2, :, :, 0] == 200
    np.testing.assert_allclose(pasted.mean(axis=(1, 2)), targets[::2, 1], atol=1e-6)
    np.testing.assert_array_equal(images[1::2, :, :, 0] == 0, pasted)
    for cell in pasted:
        rows, columns = cell.any(axis=1), cell.any(axis=0)
        np.testing.assert_array_equal(cell, rows[:, None] & columns[None])
        assert np.abs(np.diff(rows.astype(int))).sum() <= 2
    corners = {(bool(cell[0, 0]), bool(cell[-1, -1])) for cell in pasted}
    assert len(corners) >= 3, "rectangles lie anywhere"


def test_a_rectangle_has_the_aspect_of_the_picture_and_covers_the_share_that_is_drawn() -> None:
    height, width, num_pairs = 60, 80, 400
    images, targets = batch(num_pairs, height, width)
    mix_pairs(images, targets, MixupConfig(cutmix_alpha=1, cutmix_probability=1), iter(generators(num_pairs)))
    for cell in images[::2, :, :, 0] == 200:
        rows, columns = cell.any(axis=1), cell.any(axis=0)
        if not (rows[[0, -1]].any() or columns[[0, -1]].any()):
            # Both are rounded down to an even number of pixels.
            assert abs(rows.mean() - columns.mean()) <= 2 / height
    # Of a side s with its centre anywhere, s - s^2 / 4 is within the picture, and s^2 is drawn from 0 to 1 evenly: this
    # is the mean of the square, less what is rounded down. Four deviations of 0.24 / 20.
    assert targets[::2, 1].mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48 - 0.01, abs=0.05)


def test_half_of_the_pairs_are_pasted_and_half_blended() -> None:
    images, targets = batch(400)
    mix_pairs(images, targets, MixupConfig(mixup_alpha=5.0), iter(generators(400)))
    blended = np.ptp(images[::2], axis=(1, 2, 3)) == 0
    # A rectangle of no area counts as blended here: about one pair in fifty.
    assert 0.4 < blended.mean() < 0.62


def test_any_even_cut_of_the_batch_gives_the_same_images() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    whole, labels = noise.copy(), np.eye(12, dtype=np.float32)
    mix_pairs(whole, labels, MixupConfig(), iter(generators(6)))
    assert (whole != noise).any()
    for num_ranks in (2, 3, 6):
        share = 12 // num_ranks
        for rank in range(num_ranks):
            part, targets = noise[rank * share :][:share].copy(), np.eye(12, dtype=np.float32)[rank * share :][:share]
            mix_pairs(part, targets, MixupConfig(), iter(generators(6)[rank * share // 2 :][: share // 2]))
            np.testing.assert_array_equal(part, whole[rank * share :][:share])
            np.testing.assert_array_equal(targets, labels[rank * share :][:share])
