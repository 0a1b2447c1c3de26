"""A network with nested latents at its sizes: which are asked for, and what each costs and answers."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from data_shards.files import atomic
from data_shards.files.display import printable
from data_shards.files.quoting import counted
from data_shards.loading.batch import Batch
from launch.lifecycle.run_folder import RunFolder, as_typed
from model.budget.flops import network_cost, total
from model.config.perceiver import PerceiverConfig
from model.network import AnyNetwork
from model.perceiver import Perceiver
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.inference import CHUNK

ALL_SIZES = "all"
# The best of three, as other work on the machine only ever makes a pass slower.
_TIMES = 3


@dataclass(frozen=True)
class Size:
    """The network with a part of its latents."""

    num_latents: int
    """The number of its latents."""
    gflop: float
    """10^9 operations of one sample's forward pass."""
    seconds: float
    """Seconds of one sample's forward pass on this device, in a batch of the evaluation: the best of three."""
    evaluation: Evaluation
    """Its answers."""

    def as_json(self) -> dict[str, object]:
        """Return {"latents": n, "gflop": a, "seconds": b, "samples": n, "metrics": ...}."""
        costs = {"latents": self.num_latents, "gflop": self.gflop, "seconds": self.seconds}
        return costs | self.evaluation.as_json()


def chosen(config: PerceiverConfig, asked: str) -> tuple[int, ...]:
    """Return the numbers of latents that --latents asks for; ValueError where the network is not trained for them."""
    sizes = config.nested_latents
    if config.network is not None:
        raise ValueError(f"--latents {asked}: the network is a plug-in's, and latents are a Perceiver's; leave it out")
    if not sizes:
        raise ValueError(
            f"--latents {asked}: this network is trained for all of its {config.num_latents} latents only; leave the "
            "option out, or train one with model.nested_latents"
        )
    if asked == ALL_SIZES:
        return sizes
    if asked not in map(str, sizes):
        raise ValueError(f"--latents {asked}: expected one of {', '.join(map(str, sizes))}, which it is trained for")
    return (int(asked),)


def cut(network: AnyNetwork, num_latents: int) -> AnyNetwork:
    """Return the network of the first latents, or the network itself for 0."""
    if not num_latents:
        return network
    sizes = chosen(network.config, str(num_latents))
    # A network with such sizes is one.
    assert isinstance(network, Perceiver)
    return network.cut(*sizes)


def measured(
    network: AnyNetwork, batch: Batch, evaluate: Callable[[AnyNetwork], Evaluation], sizes: Sequence[int]
) -> list[Size]:
    """Return each size of a network with its evaluation. Collective, as `evaluate` is."""
    found = []
    for num_latents in sizes:
        small = cut(network, num_latents).eval()
        seconds = _seconds(small, batch)
        # Of the network that was cut, as `perceiver plan` counts it.
        flops = total(network_cost(small.config)).flops
        found.append(Size(num_latents, flops / 1e9, seconds / len(batch.keys), evaluate(small)))
    return found


def report(folder: RunFolder, step: int, split: str, sizes: Sequence[Size], *, as_json: bool) -> None:
    """Write, draw and print each size."""
    result = {"step": step, "split": split, "sizes": [size.as_json() for size in sizes]}
    atomic.write(folder.latents_path, json.dumps(result) + "\n")
    first = sizes[0].evaluation.values[0]
    costs = {
        "GFLOP per sample": [size.gflop for size in sizes],
        "ms per sample": [1e3 * size.seconds for size in sizes],
    }
    values = [size.evaluation.values[0].value for size in sizes]
    out = folder.pictures_folder / "latents.png"
    # Who only cuts a network needs no matplotlib, which takes longest to import.
    from launch.pictures import drawing

    drawing.quality_over_cost([size.num_latents for size in sizes], costs, values, first.output, first.metric, out)
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    _tell(step, split, sizes)
    sys.stdout.write(f"picture: {as_typed(out)}\n")


def _tell(step: int, split: str, sizes: Sequence[Size]) -> None:
    first = sizes[0].evaluation.values[0]
    title = f"{first.output}: {first.metric.name.replace('_', ' ')}"
    sys.stdout.write(f"step {step}, {counted(sizes[0].evaluation.samples, f'{printable(split)} sample')}\n")
    sys.stdout.write(printable(f"  {'latents':>8} {'GFLOP':>10} {'ms per sample':>14} {title:>20}") + "\n")
    for size in sizes:
        costs = f"{size.num_latents:>8} {size.gflop:>10.4f} {1e3 * size.seconds:>14.3f}"
        sys.stdout.write(f"  {costs} {size.evaluation.values[0].words:>{max(20, len(title))}}\n")


def _seconds(network: AnyNetwork, batch: Batch) -> float:
    """Return the seconds of a batch's forward pass: the best of three, after one that warms up."""
    best = float("inf")
    with torch.no_grad():
        for number in range(1 + _TIMES):
            _wait(batch)
            began = time.perf_counter()
            network(batch.arrays, batch.host_lengths, chunk=CHUNK)
            _wait(batch)
            if number:
                best = min(best, time.perf_counter() - began)
    return best


def _wait(batch: Batch) -> None:
    if batch.weights.is_cuda:
        torch.cuda.synchronize(batch.weights.device)
