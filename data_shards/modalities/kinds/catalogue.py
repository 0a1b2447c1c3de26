"""The modalities that the loader knows: the one place where they are listed."""

from collections.abc import Iterable
from dataclasses import replace

from data_shards.format.members import fitting
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.flow import FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.label import LabelConfig
from data_shards.modalities.kinds.points import PointsConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import MAIN, Modality

MODALITIES: tuple[type[Modality], ...] = (
    ImageConfig,
    AudioConfig,
    VideoConfig,
    PointsConfig,
    TextConfig,
    FlowConfig,
    ArrayConfig,
    LabelConfig,
)
"""Where several read members of one suffix, the first is meant by the suffix alone (npy), the last by a suffix with a
name before it (eeg.npy)."""
BY_NAME: dict[str, type[Modality]] = {kind().modality: kind for kind in MODALITIES}
"""The modalities above, and behind them those of the plug-ins in use, which configs/plugins.py adds."""


def contents() -> list[type[Modality]]:
    """Return the modalities whose members are the content of a sample."""
    return [kind for kind in BY_NAME.values() if not kind.is_annotation]


def usual_suffixes(modality: str) -> tuple[str, ...]:
    """Return the suffixes of the files that hold a modality."""
    return BY_NAME[modality].usual


def held_by(suffix: str) -> tuple[type[Modality], str] | None:
    """Return the modality that a member of that suffix usually holds, and its role; None for notes and all others."""
    for kind in contents():
        for role, patterns in kind().roles.items():
            if suffix in patterns:
                return kind, role
    name, _, last = suffix.rpartition(".")
    # A number before the last dot is a name with a dot too many, not the name of a camera.
    of_name = [kind for kind in contents() if name[:1].isalpha() and last in kind.usual]
    # A plug-in takes no suffix away from ours.
    chosen = [kind for kind in of_name if kind in MODALITIES] or of_name
    return (chosen[-1], MAIN) if chosen else None


def plugins() -> dict[str, type[Modality]]:
    """Return the modalities of the plug-ins in use, by name."""
    # For worker processes, which import our modalities and must be given all others.
    return {name: kind for name, kind in BY_NAME.items() if kind not in MODALITIES}


def inputs_of(suffixes: Iterable[str]) -> dict[str, Modality]:
    """Return inputs for everything in samples with such members, by name, to show data before any run."""
    suffixes = sorted(suffixes)
    inputs: dict[str, Modality] = {}
    for kind in contents():
        # To show what is there, and not to train: any size is taken.
        section = kind.lenient()
        if any(fitting(section.patterns, suffixes)):
            inputs[section.modality] = section
    for suffix in suffixes:
        held = held_by(suffix)
        # A second camera or sensor: its suffix has a name before that of the format.
        if held and held[1] == MAIN and suffix not in held[0].usual:
            stem = suffix.rpartition(".")[0].replace(".", "_")
            name = stem if stem not in inputs else suffix.replace(".", "_")
            inputs[name] = replace(held[0].lenient(), members=suffix)
    return dict(sorted(inputs.items()))
