"""The benchmark of permuted pixels compares the same pictures: only the order of their pixels differs."""

from pathlib import Path

import pytest
import torch

from benchmarks.permuted.permuted_image import PermutedImageInput, places

NETWORKS = Path(__file__).parents[2] / "examples" / "networks"


def test_a_pixel_keeps_its_fourier_position_wherever_it_comes() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3, 1)
    order = torch.from_numpy(places(12))
    permuted = pixels.flatten(1, 2)[:, order].reshape(pixels.shape)
    raw, moved = (
        PermutedImageInput(height=4, width=3, num_channels=1, order=name).adapter() for name in ("raw", "permuted")
    )
    assert torch.equal(moved(permuted, torch.float32), raw(pixels, torch.float32)[:, order])
    assert not torch.equal(order, torch.arange(12))


@pytest.mark.parametrize("path", sorted(NETWORKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_baseline_has_at_most_sixty_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
