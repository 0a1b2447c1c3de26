"""An array of vectors holds those of all parts, and its header is as the format asks."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from launch.answers import vectors

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 2, 2)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    for number, (of_part, keys) in enumerate(((VECTORS[:2], ["a", "hä"]), (VECTORS[2:], ["c"]))):
        (tmp_path / str(number)).write_bytes(vectors.part(of_part, keys))
    return [tmp_path / "0", tmp_path / "1"]


@pytest.mark.parametrize("length", range(8))
def test_what_follows_a_header_lies_at_a_multiple_of_eight(parts: list[Path], tmp_path: Path, length: int) -> None:
    parts[1].write_bytes(vectors.part(VECTORS[2:], ["c" * length]))
    out = tmp_path / "out.safetensors"
    vectors.join(parts, out, out)
    (num_bytes,) = struct.unpack("<Q", out.read_bytes()[:8])
    assert num_bytes % 8 == 0
    with safe_open(out, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("latents"), VECTORS)
        assert json.loads(file.metadata()["keys"]) == ["a", "hä", "c" * length]


def test_keys_that_no_header_holds_are_refused(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    vectors.join(parts, out, out)
    (num_bytes,) = struct.unpack("<Q", out.read_bytes()[:8])
    monkeypatch.setattr(vectors, "_MOST_HEADER_BYTES", num_bytes)
    vectors.join(parts, out, out)
    monkeypatch.setattr(vectors, "_MOST_HEADER_BYTES", num_bytes - 1)
    with pytest.raises(ValueError, match=r"name\.safetensors: the keys of 3 samples are too long .*; write \.npy"):
        vectors.join(parts, out, tmp_path / "name.safetensors")


@pytest.mark.parametrize("name", ["a", "a.csv"])
def test_another_format_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"--out {name}: expected a name that ends in \.safetensors or \.npy"):
        vectors.refuse_other(Path(name))
