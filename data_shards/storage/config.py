"""The location of a run's data: several datasets in a mixture, and shards behind a URL."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_shards.files.problems import MOST_BATCHES_AHEAD, Problem, at_least, at_most


@dataclass(frozen=True)
class DatasetConfig:
    """One of several datasets that training mixes."""

    shards: str = ""
    """Its shard folder or URL."""
    weight: float = 1.0
    """Its share of the training samples is this weight divided by the sum of all."""
    inputs: tuple[str, ...] = ()
    """The names of the run's inputs that are read from it; empty for all that it has."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        if not self.shards:
            yield "shards", "is not set; give the folder or URL of the dataset's shards"
        if not 0 < self.weight < float("inf"):
            yield "weight", f"must be above 0, got {self.weight}; to leave the dataset out, remove its section"


@dataclass(frozen=True)
class RemoteConfig:
    """How shards behind an http(s):// or s3:// URL are fetched."""

    cache_folder: str = ""
    """Folder on a local disk for fetched shards; the processes of a node share it. Needed where a URL is given."""
    cache_mib: int = 65_536
    """Size above which the shards that were used longest ago are deleted from it; it must hold those in use."""
    timeout_seconds: float = 30.0
    """A transfer in which nothing arrives for so long has failed, and is tried again."""
    deadline_seconds: float = 900.0
    """A file that has not arrived after so long, all attempts together, ends the run."""
    fetch_ahead_batches: int = 64
    """Shards of this many batches to come are fetched before they are needed."""

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        yield from at_least(1, {"cache_mib": self.cache_mib})
        yield from at_least(0, {"fetch_ahead_batches": self.fetch_ahead_batches})
        # Far above any use: a slip such as 1e9 would compute the order of so many batches before the first step.
        yield from at_most(MOST_BATCHES_AHEAD, {"fetch_ahead_batches": self.fetch_ahead_batches})
        yield from at_least(0.001, {"timeout_seconds": self.timeout_seconds, "deadline_seconds": self.deadline_seconds})
