"""The checks of one rank of the doctor's job on its node: `python -m launch.doctor.rank FOLDER`, by srun.

Leaves FOLDER/ready_K.json once the ranks have met, then waits for the signal that precedes a time limit, and leaves
FOLDER/report_K.json.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.distributed as dist

from data_shards.files import atomic
from launch.supervise.rank import torch_variables
from trainer.distributed import descriptors
from trainer.distributed.world import World

PACKAGES = ("torch", "deepspeed", "numpy", "safetensors", "omegaconf")
# Large enough that a disk's and a network's rates count, and not the time of a call.
BYTES = 16 * 2**20
ROUNDS = 5
SIGNAL_SECONDS = 30.0


def main(folder: Path) -> None:
    """Examine, and write down what was found."""
    signalled = threading.Event()
    # First: without a handler a signal that comes early would end this rank.
    signal.signal(signal.SIGUSR2, lambda _number, _frame: signalled.set())
    os.environ.update(torch_variables(os.environ))
    report: dict[str, object] = {
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "versions": versions(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "sick_gpus": sick(gpus()),
        "open_files": descriptors.hard_limit(),
        "sees_token": (folder / "token").exists(),
        "write_mib_per_second": write_speed(folder),
        "master": address(os.environ["MASTER_ADDR"]),
    }
    world = World.from_environment(60.0)
    report["rank"] = world.rank
    report["all_reduce_gib_per_second"] = bandwidth(world)
    world.barrier()
    # All ranks pass the barrier within milliseconds, so that what is left is the difference of their clocks.
    report["clock"] = time.time()
    world.barrier()
    (folder / f"ready_{world.rank}.json").write_text("{}")
    # The signal comes once all ranks are ready, or never.
    deadline = time.monotonic() + SIGNAL_SECONDS
    while not signalled.is_set() and time.monotonic() < deadline:
        time.sleep(0.1)
    report["signalled"] = signalled.is_set()
    atomic.write(folder / f"report_{world.rank}.json", json.dumps(report))
    world.close()


def address(master: str) -> str:
    """Return the first node's name with its address; ends this process in plain words where it has none."""
    try:
        return f"{master} is {socket.gethostbyname(master)}"
    except OSError as error:
        here = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        sys.exit(f"{here}: the first node, {master}, has no address here ({error}); add it to DNS or /etc/hosts")


def versions() -> dict[str, str]:
    """Return the versions of python and of the libraries that decide what a run computes."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def gpus() -> list[str]:
    """Return a line for every GPU here: its name and its uncorrected memory errors. None without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,ecc.errors.uncorrected.volatile.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False, timeout=60).stdout.splitlines()


def sick(lines: list[str]) -> list[str]:
    """Return the lines of GPUs whose memory has errors."""
    # GPUs without error correction have no count.
    return [line for line in lines if line.rpartition(",")[2].strip() not in ("0", "[N/A]", "N/A", "[Not Supported]")]


def write_speed(folder: Path) -> float:
    """Return how fast this process writes into the folder, in MiB a second, until the bytes are on the disk."""
    # All ranks write at once into one folder, as checkpoints are written.
    path = folder / f".speed_{socket.gethostname()}_{os.getpid()}"
    # Random bytes: some disks compress, and would be measured by their processor.
    content, started = os.urandom(BYTES), time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        # Without it the speed would be that of memory.
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return BYTES / 2**20 / seconds


def bandwidth(world: World) -> float:
    """Return how fast a rank's tensor is summed over all, in GiB a second. Collective."""
    tensor = torch.ones(BYTES // 4, device=world.device)
    # All begin together: who came early would count its waiting, too.
    world.barrier()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        dist.all_reduce(tensor)
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    return ROUNDS * BYTES / 2**30 / (time.perf_counter() - started)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
