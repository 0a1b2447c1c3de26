"""How many samples were longer than an input reads: counted batch by batch, and told once in the end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_shards.config import DataConfig
from data_shards.files.quoting import counted
from data_shards.loading.batch import Batch


@dataclass(frozen=True)
class Cuts:
    """Samples that were cut, and those that have the input, by its name."""

    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @staticmethod
    def of(batches: Iterable[Batch]) -> "Cuts":
        """Return the counts of batches, on the host; of several clips of the same samples give the first alone."""
        return Cuts.total(
            Cuts({name: (batch.num_cut.get(name, 0), int((of > 0).sum())) for name, of in batch.host_lengths.items()})
            # Of lengths on the host: to ask the device would wait for it in every batch.
            for batch in batches
        )

    @staticmethod
    def total(parts: Iterable["Cuts"]) -> "Cuts":
        """Return the sum of counts."""
        counts: dict[str, tuple[int, int]] = {}
        for part in parts:
            for name, (num_cut, num_samples) in part.counts.items():
                cut_before, before = counts.get(name, (0, 0))
                counts[name] = cut_before + num_cut, before + num_samples
        return Cuts(counts)

    def as_json(self) -> dict[str, int]:
        """Return the number of samples that were cut, by input, without those of which none was."""
        return {name: num_cut for name, (num_cut, _) in self.counts.items() if num_cut}

    def sentences(self, config: DataConfig) -> list[str]:
        """Return a sentence on each input of which samples were cut."""
        return [
            f"{num_cut} of {counted(num_samples, 'sample')} of input {name} {_words(config, name, num_cut)}"
            for name, (num_cut, num_samples) in self.counts.items()
            if num_cut
        ]


def _words(config: DataConfig, name: str, num_cut: int) -> str:
    section, were = config.inputs[name], "was" if num_cut == 1 else "were"
    # An input without time, or that says itself where it is read, reads the same part in every clip.
    if config.num_clips > 1 and section.at(0) != section.at(1):
        return f"{were} {section.too_long}: {config.num_clips} clips of each were read"
    return f"{were} {section.too_long} and {were} {'subsampled' if section.subsamples else 'cut'}"
