"""What a run asks of its data: the modalities with their fixed shapes, the sample order, and the loader's limits.

A modality is used when its section is set; every batch then has that array, zeros where a sample lacks it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from data_shards.sections import AudioConfig, ImageConfig, PointsConfig, Section, TextConfig, VideoConfig
from data_shards.transform_config import Problem, at_least

__all__ = ["AudioConfig", "DataConfig", "ImageConfig", "PointsConfig", "Section", "TextConfig", "VideoConfig"]


@dataclass(frozen=True)
class DataConfig:
    """The data of a run."""

    shards: str = ""
    """Folder that `perceiver data build` or `perceiver data index` wrote, with its train and test splits."""
    image: Optional[ImageConfig] = None  # noqa: UP045 - OmegaConf reads Optional[X] best
    """Set to use images."""
    audio: Optional[AudioConfig] = None  # noqa: UP045
    """Set to use audio."""
    video: Optional[VideoConfig] = None  # noqa: UP045
    """Set to use video."""
    points: Optional[PointsConfig] = None  # noqa: UP045
    """Set to use point clouds."""
    text: Optional[TextConfig] = None  # noqa: UP045
    """Set to use text."""
    modality_dropout: dict[str, float] = field(default_factory=dict)
    """Probability a modality that training hides it from a sample; at least one modality of a sample always stays."""
    lanes: int = 8
    """Streams of shards that give equal parts of every global batch; must divide it. Part of the order."""
    window: int = 1024
    """Samples of a lane that are shuffled among each other: none moves further than half of it. Part of the order."""
    num_threads: int = 2
    """Threads that decode, each a whole batch."""
    prefetch_batches: int = 4
    """Batches made ahead of the one that is asked for, at most."""
    prefetch_mib: int = 1024
    """Memory that those batches may take together, at most."""

    def modalities(self) -> dict[str, "Section"]:
        """Return the sections that are set, by modality, in alphabetical order."""
        sections = {
            "audio": self.audio,
            "image": self.image,
            "points": self.points,
            "text": self.text,
            "video": self.video,
        }
        return {name: section for name, section in sections.items() if section is not None}

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the data's configuration."""
        if not self.modalities():
            yield "image", "no modality is set; set at least one of audio, image, points, text, video"
        for name, section in self.modalities().items():
            yield from ((f"{name}.{key}", sentence) for key, sentence in section.problems())
        for name, probability in self.modality_dropout.items():
            if name not in self.modalities():
                yield (
                    f"modality_dropout.{name}",
                    f"{name!r} is not a modality of this run; set data.{name} or leave it out",
                )
            if not 0 <= probability <= 1:
                yield f"modality_dropout.{name}", f"must be a probability from 0 to 1, got {probability}"
        positive = ("lanes", "window", "num_threads", "prefetch_batches", "prefetch_mib")
        yield from at_least(1, {name: getattr(self, name) for name in positive})
