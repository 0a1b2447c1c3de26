"""The configuration of a network alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.files import sections_of
from configs.reader import read
from configs.run import load
from model.config.perceiver import PerceiverConfig


@dataclass(frozen=True)
class NetworkConfig:
    """A network alone."""

    model: PerceiverConfig = field(default_factory=PerceiverConfig)
    """The network."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem."""
        yield from ((f"model.{key}", sentence) for key, sentence in self.model.problems())


def network_config(path: Path | str, overrides: Sequence[str] = ()) -> PerceiverConfig:
    """Return the network of a YAML file: of a whole run, or of a file that holds `model` alone."""
    path = Path(path)
    if sections_of(path) <= {"model"}:
        return read(NetworkConfig, path, overrides).model
    # In the file of a run the sizes of inputs stand in its data, and its plug-ins may have brought their modalities.
    return load(path, overrides).model
