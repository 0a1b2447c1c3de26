"""The device and the sizes of what the parts measure, and the file in which they leave what they have found so far."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from model.config.perceiver import PerceiverConfig

ROOT = Path(__file__).parents[2]
Found = dict[str, Any]

# The papers' networks in small: a CPU tries every line in a minute.
_TINY = {
    "num_latents": 16,
    "latent_width": 64,
    "layers_per_block": 1,
    "num_blocks": 2,
    "num_cross_attends": 2,
    "inputs.image.height": 32,
    "inputs.image.width": 32,
}


@dataclass(frozen=True)
class Setting:
    """Says where and how large every part measures."""

    device: torch.device
    """The device that the networks are on."""
    is_tiny: bool
    """Whether all sizes are small, to try the kit itself."""
    work: Path
    """The folder of what the parts make and leave."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device.type == "cuda"

    @property
    def shards(self) -> Path:
        """The shards that whole runs train on."""
        return self.work / "shards"

    @property
    def command(self) -> list[str]:
        """The arguments that make this setting again."""
        return ["--device", self.device.type, "--work", str(self.work), *(["--tiny"] if self.is_tiny else [])]

    def batches(self) -> tuple[int, ...]:
        """Return the batches to measure, the largest first."""
        return (2,) if self.is_tiny else (64, 32, 16)

    def config(self, name: str, **change: object) -> "PerceiverConfig":
        """Return a network of configs/paper, changed; small if everything is."""
        small: Mapping[str, object] = _TINY if self.is_tiny else {}
        values = {**small, **change}
        if name == "i1":
            # Perceiver IO reads once.
            values.pop("num_cross_attends", None)
        # Loading it takes longer than the parts that only start runs.
        from configs.network import network_config

        overrides = [f"model.{key}={value}" for key, value in values.items()]
        return network_config(ROOT / "configs" / "paper" / f"{name}.yaml", overrides)

    def keep(self, part: str, found: Found) -> None:
        """Write what a part has found so far: a crash or its limit loses the rest only."""
        beside = self.work / f"{part}.beside"
        beside.write_text(json.dumps(found))
        beside.replace(self.work / f"{part}.json")
