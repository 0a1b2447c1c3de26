"""`make compatibility`: the fast tests with the oldest and the newest PyTorch and DeepSpeed, each in an environment.

    python tests/compatibility/environments.py [oldest] [newest] [--tests tests/model ...]

The oldest are the lower bounds of pyproject.toml, the newest the pins of constraints.txt; all else is as pinned.
Environments are kept under .compatibility/, a folder for each. To be run by hand: a wheel of PyTorch for CUDA brings
3 GB of libraries. `--without-cuda-libraries` leaves them out and puts empty ones in their place
(cuda_stubs.py), with which such a wheel computes on a CPU.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".compatibility"
VARIED = ("torch", "deepspeed")


def pairs() -> dict[str, dict[str, str]]:
    """Return the version of each varied package, for "oldest" and "newest"."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    # 2.9.0a0, which lets pre-releases in, means 2.9.0.
    lower = {name: re.search(rf"^{name}>=([0-9.]+[0-9])", "\n".join(declared), re.MULTILINE) for name in VARIED}
    pins = dict(line.split("==") for line in pinned(VARIED))
    return {"oldest": {name: found[1] for name, found in lower.items() if found}, "newest": pins}


def pinned(names: tuple[str, ...] | None) -> list[str]:
    """Return the lines of constraints.txt for these packages; for None those of all that are not varied."""
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line]
    if names is None:
        return [line for line in lines if line.partition("==")[0] not in VARIED]
    return [line for line in lines if line.partition("==")[0] in names]


def build(folder: Path, versions: dict[str, str], *, has_cuda_libraries: bool) -> Path:
    """Make the environment, or take the one that is there; return its python."""
    python = folder / "bin" / "python"
    if (folder / "installed").is_file():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    others = folder / "others.txt"
    others.write_text("\n".join(pinned(None)))
    install = [python, "-m", "pip", "install", "--quiet"]
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    if has_cuda_libraries:
        subprocess.run([*install, "-c", others, wanted[0]], check=True)
        subprocess.run([*install, "-c", others, *wanted, "-e", f"{REPOSITORY}[dev]"], check=True)
    else:
        subprocess.run([*install, "--no-deps", *wanted, "-r", others], check=True)
        subprocess.run([*install, "--no-deps", triton_of(python), "-e", REPOSITORY], check=True)
        maker = Path(__file__).with_name("cuda_stubs.py")
        (library,) = folder.glob("lib/python3*/site-packages/torch/lib")
        subprocess.run([sys.executable, maker, library, folder / "stubs"], check=True)
    peer = next(each for each in (REPOSITORY / "Makefile").read_text().split() if each.startswith("perceiver-io=="))
    subprocess.run([*install, "--no-deps", "--ignore-requires-python", peer], check=True)
    (folder / "installed").touch()
    return python


def triton_of(python: Path) -> str:
    """Return the Triton that the PyTorch of an environment asks for, as pip takes it."""
    code = "from importlib.metadata import requires; print(*requires('torch'), sep=chr(10))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    (triton,) = re.findall(r"^(triton==[^; ]+)", asked, re.MULTILINE)
    return str(triton)


def tested(python: Path, folders: list[str], seconds: int) -> bool:
    """Run the fast tests, a folder at a time, and print each one's last line; return whether all passed."""
    stubs = python.parents[1] / "stubs"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"LD_LIBRARY_PATH": str(stubs)} if stubs.is_dir() else {})}
    passed = True
    for folder in folders:
        log = python.parents[1] / f"{folder.replace('/', '_')}.log"
        command = [python, "-m", "pytest", "-q", "-m", "not slow and not slurm", "-p", "no:cacheprovider", folder]
        with log.open("w") as output:
            try:
                done = subprocess.run(
                    command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output, timeout=seconds, check=False
                )
                passed &= done.returncode == 0
            except subprocess.TimeoutExpired:
                output.write(f"\nnot done after {seconds} s\n")
                passed = False
        print(f"  {folder}: {log.read_text().splitlines()[-1]} ({log})", flush=True)  # noqa: T201
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", choices=("oldest", "newest"), default=["oldest", "newest"])
    parser.add_argument("--tests", nargs="+", default=[f"tests/{name}" for name in _folders()])
    parser.add_argument("--seconds", type=int, default=1800, help="for each folder of tests")
    parser.add_argument("--without-cuda-libraries", action="store_true")
    arguments = parser.parse_args()
    passed = True
    for name in arguments.pairs:
        versions = pairs()[name]
        python_version = ".".join(map(str, sys.version_info[:2]))
        folder = FOLDER / "-".join((f"python{python_version}", *(f"{key}{value}" for key, value in versions.items())))
        print(f"{name}: Python {python_version}, {versions}", flush=True)  # noqa: T201
        python = build(folder, versions, has_cuda_libraries=not arguments.without_cuda_libraries)
        passed &= tested(python, arguments.tests, arguments.seconds)
    return 0 if passed else 1


def _folders() -> list[str]:
    return sorted({path.parent.name for path in (REPOSITORY / "tests").glob("*/test_*.py")} - {"slurm", "mutants"})


if __name__ == "__main__":
    sys.exit(main())
