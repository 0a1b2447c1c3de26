"""How fast is the network beside its peers? One training step (forward and backward) of equal architectures.

    make .venv/installed      # which installs the peers, too
    python benchmarks/network.py --json OUT.json [--only imagenet64] [--dtypes float32 bfloat16]

`ours` is the network as a config gives it, `ours, compiled` the same with model.compile=true; peers run as they come.
Every measurement is a process of its own, so that its peak memory is its own; networks take turns, and each keeps the
best of its turns. Seconds of the process' CPU are reported beside seconds of the clock, since only they mean something
on a machine that others use too; the ratios are made of them. Peak memory is what a step adds to the built network.

The peers' architectures equal ours except for lucidrains', whose MLPs are gated and four times as wide (it cannot be
told otherwise): it is listed, and no ratio is made of it. transformers has one cross-attend only and is compared there.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.arguments import at_least
from benchmarks.peers import BUILDERS, COMPILED, CONFIGS, OURS
from model.budget.flops import network_cost, total

# lucidrains' is another architecture.
EQUAL_PEERS = ("transformers", "perceiver-io")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CONFIGS))
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--turns", type=at_least(1), default=3)
    parser.add_argument("--networks", nargs="*", default=list(BUILDERS))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measured(*arguments.worker)))
        return
    print(f"{'configuration':16} {'network':18} {'dtype':9} {'s':>8} {'CPU s':>8} {'MiB':>7} {'of peak':>8}")
    rows: list[dict[str, Any]] = []
    for dtype in arguments.dtypes:
        for name in arguments.only:
            found = compared(name, dtype, arguments.turns, arguments.networks)
            print_rows(found)
            rows += found
            # After each: the whole takes half an hour, and may be interrupted.
            if arguments.json:
                arguments.json.write_text(json.dumps({"rows": rows, **ratios(rows)}, indent=1))
    for key, ratio in ratios(rows).items():
        print(f"{key:52} {ratio:.2f}")


def compared(name: str, dtype: str, turns: int, networks: list[str]) -> list[dict[str, Any]]:
    """The best turn of every network that has this configuration."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(turns):
        for network in (network for network in CONFIGS[name].networks if network in networks):
            command = [sys.executable, __file__, "--worker", name, network, dtype]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                print(f"{network} failed on {name} {dtype}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            if network not in best or row["cpu_seconds"] < best[network]["cpu_seconds"]:
                best[network] = row
    return list(best.values())


def measured(name: str, network: str, dtype: str) -> dict[str, Any]:
    """One network, alone in its process."""
    config = CONFIGS[name]
    # One thread: threads that wait for each other on a shared machine burn CPU seconds.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    built = BUILDERS[network](config)
    step, parameters = training_step(built, config.inputs(), getattr(torch, dtype))
    # The first step compiles, prepares the libraries and leaves gradients: memory is that of the second.
    step()
    built.zero_grad(set_to_none=True)
    gc.collect()
    # glibc keeps what was freed. Given back to the system, it is no part of the mark from which a step is measured.
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_kib("VmRSS")
    # Forget the highest mark so far, which may lie above that of a step.
    Path("/proc/self/clear_refs").write_text("5")
    step()
    peak = resident_kib("VmHWM") - before
    times = [timed(step) for _ in range(config.steps)]
    seconds, cpu_seconds = (min(column) for column in zip(*times, strict=True))
    flops = 3 * total(network_cost(config.ours)).flops
    return {
        "configuration": name,
        "network": network,
        "dtype": dtype,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak / 2**10,
        "parameters": parameters,
        # Of the paper's operations, so that a network that avoids some can exceed 1.
        "ceiling_fraction": flops / cpu_seconds / product_ceiling(getattr(torch, dtype)),
    }


def resident_kib(field: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its highest (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def training_step(network: torch.nn.Module, inputs: Tensor, dtype: torch.dtype) -> tuple[Callable[[], None], int]:
    network = network.to(dtype).train()
    # Heads that start at 0 would let nothing but zeros into the backward pass.
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(inputs).float().square().mean().backward()

    return step, sum(parameter.numel() for parameter in network.parameters())


def timed(step: Callable[[], None]) -> tuple[float, float]:
    start, cpu_start = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start, time.process_time() - cpu_start


def product_ceiling(dtype: torch.dtype) -> float:
    """Operations of a CPU second in a large matrix product."""
    left, right = torch.randn(512, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)

    def product() -> None:
        for _ in range(10):
            torch.mm(left, right)

    return 10 * 2 * 512 * 1024 * 1024 / min(timed(product)[1] for _ in range(5))


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many times faster than the best equal peer, and how much of the smallest peer's memory."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(row["configuration"] for row in rows):
        for dtype in dict.fromkeys(row["dtype"] for row in rows):
            here = {row["network"]: row for row in rows if (row["configuration"], row["dtype"]) == (name, dtype)}
            peers = [here[network] for network in here if network in EQUAL_PEERS]
            precision = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
            for network, prefix in ((OURS, name), (COMPILED, f"{name}_compiled")):
                if network not in here or not peers:
                    continue
                by_time = min(row["cpu_seconds"] for row in peers) / here[network]["cpu_seconds"]
                by_memory = here[network]["peak_mib"] / min(row["peak_mib"] for row in peers)
                found[f"{prefix}_step_vs_best_peer_{precision}"] = by_time
                found[f"{prefix}_memory_vs_best_peer_{precision}"] = by_memory
    # The goal's own names.
    for precision in ("fp32", "bf16"):
        if f"imagenet224_step_vs_best_peer_{precision}" in found:
            found[f"step_vs_best_peer_{precision}"] = found[f"imagenet224_step_vs_best_peer_{precision}"]
    if "imagenet224_memory_vs_best_peer_fp32" in found:
        found["memory_vs_best_peer"] = found["imagenet224_memory_vs_best_peer_fp32"]
    return found


def print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['configuration']:16} {row['network']:18} {row['dtype']:9} {row['seconds']:8.3f} "
            f"{row['cpu_seconds']:8.3f} {row['peak_mib']:7.0f} {row['ceiling_fraction']:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
