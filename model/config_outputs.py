"""The outputs of a network, one dataclass a task."""

from dataclasses import dataclass, field

from model.config_grids import Problems


@dataclass(frozen=True)
class LabelOutput:
    """A class, or several that do not exclude each other."""

    num_classes: int = 1_000
    """Classes."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every problem."""
        if self.num_classes < 1:
            yield "num_classes", f"must be at least 1, got {self.num_classes}"


@dataclass(frozen=True)
class OutputsConfig:
    """The tasks that a network answers: those that are set."""

    label: LabelOutput | None = field(default_factory=LabelOutput)
    """Classification."""

    def problems(self) -> Problems:
        """Yield (key, sentence) of every output's problems."""
        if self.label is None:
            yield "label", "no output is set; set at least one"
            return
        yield from ((f"label.{key}", sentence) for key, sentence in self.label.problems())
