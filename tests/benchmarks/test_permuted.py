"""The benchmark of permuted pixels compares the same pictures: only the order of their pixels differs."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.permuted import __main__ as permuted
from benchmarks.permuted.permuted_image import PermutedImageInput, places
from configs import plugins

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


@pytest.fixture
def mnist(tmp_path: Path) -> Iterator[Path]:
    """Two pictures of each digit to train on, and one to test behind those that the benchmark leaves out."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        for split, first, count in (("train", 0, 2), ("test", permuted.LEFT_OUT["test"], 1)):
            for digit in range(10):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(file, "PNG")
                for number in range(first + count):
                    archive.writestr(f"{split}/{digit}/{number:05d}.png", file.getvalue())
    yield tmp_path / "mnist.zip"
    plugins.use(())


@pytest.mark.slow
def test_the_command_trains_networks_in_both_orders_and_draws_the_table(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--seeds", "1", "--steps", "1", "--training", "2", "--testing", "1"]
    out, picture = tmp_path / "found.json", tmp_path / "permuted.png"
    words = ["permuted", "--mnist", mnist, *sizes, "--json", out, "--picture", picture]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    monkeypatch.setattr(permuted, "RUN", permuted.RUN.replace("lanes: 8", "lanes: 4").replace("batch: 32", "batch: 16"))
    # A Perceiver and a baseline: every network would cost two runs more.
    chosen = ("Perceiver, Fourier features", "ResNet")
    monkeypatch.setattr(permuted, "NETWORKS", {name: permuted.NETWORKS[name] for name in chosen})
    permuted.main()
    rows = {row["network"]: row["accuracy"] for row in json.loads(out.read_text())["rows"]}
    assert tuple(rows) == chosen
    assert all(len(row[order]) == 1 for row in rows.values() for order in permuted.ORDERS)
    # A Perceiver answers alike in both orders, but for the last digits of its sums: they may decide one of ten samples.
    in_rows, moved = (rows[chosen[0]][order][0] for order in permuted.ORDERS)
    assert abs(in_rows - moved) <= 10
    assert capsys.readouterr().out.count("| ResNet |") == 2
    assert picture.stat().st_size > 10_000
