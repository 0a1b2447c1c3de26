"""The weights that a run starts from. Standard library only."""

from dataclasses import dataclass
from typing import Literal

from model.config.grids import Problems


@dataclass(frozen=True)
class InitialWeightsConfig:
    """Weights that a run takes at its step 0, in place of those that its seed draws."""

    source: str = ""
    """A run, RUN@best or RUN@600; a folder with a config.yaml and a model.safetensors, as `perceiver import` writes;
    a file of the names that our checkpoints have. Empty draws all weights from the seed."""
    weights: Literal["", "trained", "ema"] = ""
    """Which weights of a run: those that its optimizer updated, or their moving average (ema). Empty takes those that
    the run evaluates."""
    drop: tuple[str, ...] = ()
    """Patterns of this network's parameters that are drawn all the same, such as `decoder.*`."""
    rename: tuple[str, ...] = ()
    """Beginnings of the source's names and what stands for them here, OLD=NEW, such as
    inputs.adapters.image=inputs.adapters.photo."""
    resize: bool = False
    """Whether tables of another number of rows are taken: positions and queries by interpolation along the axes of
    their grid, latents by leaving out the last or keeping new ones as drawn."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        for pair in self.rename:
            if pair.count("=") != 1:
                yield "rename", f"expected OLD=NEW, got {pair!r}"
        beginnings = [pair.partition("=")[0] for pair in self.rename]
        for twice in sorted({each for each in beginnings if beginnings.count(each) > 1}):
            yield "rename", f"has {twice!r} twice; leave one"
        # Without a source nobody takes weights, and a key without effect would be taken for one with.
        if self.source:
            return
        for key in ("weights", "drop", "rename", "resize"):
            if getattr(self, key):
                yield (
                    key,
                    "says how weights are taken, but initial_weights.source is not set; set it too",
                )
