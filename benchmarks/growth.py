"""How does a step grow with the number of inputs, beside a transformer that attends from every input to every other?

    python benchmarks/growth.py --json OUT.json [--picture docs/pictures/growth.png] [--largest 65536]

Both have 6 layers of 256 channels and 8 heads, and read M points; the Perceiver's layers work on 256 latents after one
cross-attend. One step is forward and backward, batch 1, one thread, float32, in CPU seconds. The transformer's largest
sizes are left out once a step would take longer than two minutes: it grows with the square.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor, nn

from benchmarks.arguments import at_least
from model.attention.layers import SelfAttend
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.parameters import draw_parameters
from model.perceiver import Perceiver

LAYERS, WIDTH, HEADS, LATENTS, CLASSES, BANDS = 6, 256, 8, 256, 10, 16
LONGEST_SECONDS = 120.0
# Longer steps are measured once.
LONG_SECONDS = 5.0


class Transformer(nn.Module):
    """The same layers over all points, which are projected to their width."""

    def __init__(self, tokens: nn.Module, token_width: int) -> None:
        super().__init__()
        self.tokens, self.project = tokens, nn.Linear(token_width, WIDTH)
        self.layers = nn.ModuleList(SelfAttend(WIDTH, AttentionConfig(num_heads=HEADS), "tanh") for _ in range(LAYERS))
        self.logits = nn.Linear(WIDTH, CLASSES)
        draw_parameters(self.layers, 0)

    def forward(self, points: Tensor) -> Tensor:
        values = self.project(self.tokens({"points": points}, None, None, points.dtype).values)
        for layer in self.layers:
            values = layer(values)
        logits: Tensor = self.logits(values.mean(dim=1))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--largest", type=at_least(1), default=65_536)
    parser.add_argument("--turns", type=at_least(1), default=3)
    arguments = parser.parse_args()
    # One thread: threads that wait for each other on a shared machine burn CPU seconds.
    torch.set_num_threads(1)
    rows = list(measured(arguments.largest, arguments.turns))
    print(f"{'inputs':>8} {'network':12} {'CPU s a step':>12}")
    for row in rows:
        print(f"{row['inputs']:8} {row['network']:12} {row['cpu_seconds']:12.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1))
    if arguments.picture:
        draw(rows, arguments.picture)


def measured(largest: int, turns: int) -> Iterator[dict[str, object]]:
    """Yield the time of each network at 1 k inputs, at 2 k, and so on."""
    last = dict.fromkeys(("perceiver", "transformer"), 0.0)
    num_inputs = 1_024
    while num_inputs <= largest:
        perceiver = Perceiver(network(num_inputs), seed=0)
        points = torch.rand(1, num_inputs, 3) * 2 - 1
        transformer = Transformer(perceiver.inputs, perceiver.config.token_width)
        steps = {
            "perceiver": lambda: perceiver({"points": points})["label"].square().sum().backward(),  # noqa: B023
            "transformer": lambda: transformer(points).square().sum().backward(),  # noqa: B023
        }
        for name, step in steps.items():
            # Twice the inputs are four times the work of a transformer.
            if 4 * last[name] < LONGEST_SECONDS:
                last[name] = seconds(step)
                if last[name] < LONG_SECONDS:
                    last[name] = min(seconds(step) for _ in range(turns))
                yield {"inputs": num_inputs, "network": name, "cpu_seconds": last[name]}
        num_inputs *= 2


def network(num_inputs: int) -> PerceiverConfig:
    return PerceiverConfig(
        inputs={"points": PointsInput(num_points=num_inputs, num_bands=BANDS, max_frequency=16.0)},
        outputs={"label": LabelOutput(num_classes=CLASSES)},
        num_latents=LATENTS,
        latent_width=WIDTH,
        num_cross_attends=1,
        num_blocks=1,
        layers_per_block=LAYERS,
        self_attend=AttentionConfig(num_heads=HEADS),
    )


def seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def draw(rows: list[dict[str, object]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name in ("transformer", "perceiver"):
        points = [(row["inputs"], row["cpu_seconds"]) for row in rows if row["network"] == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="inputs", ylabel="CPU seconds a step")
    axes.set_xticks([1_024, 4_096, 16_384, 65_536], ["1 k", "4 k", "16 k", "64 k"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
