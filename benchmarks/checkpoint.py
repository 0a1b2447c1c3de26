"""Time of save and load of 200 M parameters with AdamW at ZeRO 1, against DeepSpeed's own and torch's distributed one.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.checkpoint --json checkpoint.json

All write weights and both moments. "stall" is how long the training stands still; ours is written by every rank,
hashed, synced to the disk and committed by a rename; the others neither hash nor sync. Medians of rounds in turns.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from benchmarks.arguments import at_least
from model.outputs.label import LabelOutput
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.run_state import RunState
from trainer.tasks.objective import objective

LAYERS, WIDTH = 12, 4096
TARGET = 0.10
CLASSES = objective({"label": LabelOutput()})


class Network(nn.Module):
    """Linear layers of 16.8 M parameters each."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(num_layers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=at_least(1), default=LAYERS)
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    world = World.from_environment(600.0)
    folder = Path(world.broadcast(tempfile.mkdtemp(dir=arguments.folder)))
    try:
        figures = measure(world, folder, arguments.layers, arguments.rounds)
    finally:
        world.barrier()
        if world.is_first:
            shutil.rmtree(folder)
    if world.is_first:
        report(figures, arguments.json)
    world.close()


def measure(world: World, folder: Path, num_layers: int, rounds: int) -> dict[str, float]:
    train = TrainConfig(global_batch=world.world_size, zero_stage=1)
    network = Network(num_layers)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    engine = Engine(network, CLASSES, optimizer=OptimizerConfig(), train=train, world=world)
    stores = {
        mode: Store(folder / mode, CheckpointConfig(keep_last=1, asynchronous=mode == "asynchronous"), world)
        for mode in ("blocking", "asynchronous")
    }
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        world.barrier()
        # A save lasts as long as that of its slowest rank: all begin together, and each waits for all.
        started = time.perf_counter()
        work()
        world.barrier()
        seconds.setdefault(name, []).append(time.perf_counter() - started)

    def one_round(state: RunState) -> None:
        timed("ours, blocking save", lambda: stores["blocking"].save(engine, state))
        timed("ours, asynchronous stall", lambda: stores["asynchronous"].save(engine, state))
        timed("ours, background rest", stores["asynchronous"].wait)
        timed("ours, load", lambda: stores["blocking"].load(engine))
        timed("deepspeed save", lambda: engine._deepspeed.save_checkpoint(str(folder / "deepspeed"), tag="one"))
        timed("deepspeed load", lambda: engine._deepspeed.load_checkpoint(str(folder / "deepspeed"), tag="one"))
        tensors = {f"{kind} {name}": value for kind, part in engine.snapshot().items() for name, value in part.items()}
        timed("torch dcp save", lambda: save(tensors, checkpoint_id=folder / "dcp"))
        timed("torch dcp load", lambda: load(tensors, checkpoint_id=folder / "dcp"))
        if world.is_first:
            # All begin each round on an empty folder; ours removes its own as a part of its save (keep_last=1).
            shutil.rmtree(folder / "deepspeed")
            shutil.rmtree(folder / "dcp")
        world.barrier()

    for step in range(rounds + 1):  # the first round makes the host memory and is left out
        one_round(RunState(step=step))
    for store in stores.values():
        store.close()
    return {"parameters": num_parameters, **{name: statistics.median(values[1:]) for name, values in seconds.items()}}


def report(figures: dict[str, float], path: Path | None) -> None:
    share = figures["ours, asynchronous stall"] / figures["ours, blocking save"]
    print(f"{figures['parameters'] / 1e6:.0f} M parameters, {torch.distributed.get_world_size()} ranks")
    for name, value in figures.items():
        if name != "parameters":
            print(f"{name:26} {value:7.2f} s")
    print(f"stall / blocking save       {share:7.2%}   target at most {TARGET:.0%}")
    if path:
        path.write_text(json.dumps({**figures, "stall_share": share}, indent=1))


if __name__ == "__main__":
    main()
