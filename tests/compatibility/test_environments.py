"""The environments of `make compatibility`."""

import shutil
import subprocess
from pathlib import Path

import environments
import pytest
from cuda_stubs import wanted, write

from launch.versions import PACKAGES, numbers


def test_the_oldest_are_the_lower_bounds_and_the_newest_the_pins() -> None:
    pairs = environments.pairs()
    for name, (first, beyond) in PACKAGES.items():
        oldest, newest = (numbers(pairs[pair][name]) for pair in ("oldest", "newest"))
        assert oldest[: len(first)] == first
        assert first <= newest < beyond
    assert not any(line.startswith(("torch==", "deepspeed==")) for line in environments.pinned(None))


def test_every_folder_of_fast_tests_is_run() -> None:
    assert {"trainer", "model", "launch", "data_shards", "configs", "compatibility"} <= set(environments._folders())


@pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("nm") is None, reason="needs gcc and binutils")
def test_a_library_that_needs_cuda_loads_beside_stubs_and_is_told_that_there_is_no_device(tmp_path: Path) -> None:
    lib, real, out = (tmp_path / name for name in ("lib", "real", "out"))
    for folder in (lib, real, out):
        folder.mkdir()
    (tmp_path / "cudart.c").write_text("int cudaGetDeviceCount(int *count) { return 0; }")
    (tmp_path / "map").write_text("libcudart.so.12 { global: cudaGetDeviceCount; };")
    (tmp_path / "torch.c").write_text("int cudaGetDeviceCount(int *); int main(void) { return cudaGetDeviceCount(0); }")
    cudart = real / "libcudart.so.12"
    script = f"-Wl,--version-script={tmp_path / 'map'}"
    soname = "-Wl,-soname,libcudart.so.12"
    subprocess.run(["gcc", "-shared", "-fPIC", script, soname, "-o", cudart, tmp_path / "cudart.c"], check=True)
    program = lib / "libtorch.so"
    subprocess.run(["gcc", "-o", program, tmp_path / "torch.c", cudart], check=True)
    found = wanted(lib)
    assert found == {"libcudart.so.12": {"libcudart.so.12": {"cudaGetDeviceCount"}}}
    write("libcudart.so.12", found["libcudart.so.12"], out)
    assert subprocess.run([program], env={"LD_LIBRARY_PATH": str(out)}, check=False).returncode == 100
