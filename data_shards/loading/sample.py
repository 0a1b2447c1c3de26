"""From members to the arrays of one sample in the configured shapes: decoding, transforms, hidden inputs.

    members     jpg       wav       txt
    _found      photo     sound     words     inputs that the sample has, in the order of their names
    _shown      0.71      0.08      0.55      one draw each; below its modality_dropout an input is hidden
    prepare     draws     -         draws     what training varies; what is hidden is decoded only if all else is empty

All draws come from the sample's own generator, in this order, so that a run gives the same arrays wherever it resumes.
"""

from collections.abc import Mapping

import numpy as np

from data_shards.config import DataConfig
from data_shards.files.plugin_files import PluginError, fault_in_sample, is_of_plugin, place_of
from data_shards.format.annotations import OWN, Records, notes
from data_shards.format.members import fitting
from data_shards.loading.batch import Sample
from data_shards.loading.quarantine import one_line
from data_shards.modalities.modality import COORDINATES, Members, Modality, Prepared, select


class BadMemberError(ValueError):
    """A member that cannot be decoded."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.input = name


def prepare(
    members: Mapping[str, bytes | memoryview],
    config: DataConfig,
    rng: np.random.Generator | None = None,
    *,
    records: Records = OWN,
    clip: int = 0,
) -> Sample:
    """Return the configured inputs that the sample has, with its label and weight.

    `members` maps suffixes to bytes. With a generator the sample is one for training: transformed at random, some
    inputs hidden. Every draw comes from it, so equal generators give equal samples. `records` says what is taken of a
    record; `clip` is the number of the clip in an evaluation of several. Raises ValueError, which names the member and
    says what is wrong with it.
    """
    found = _found(config, members)
    arrays: dict[str, np.ndarray] = {}
    targets: dict[str, np.ndarray] = {}
    lengths: dict[str, int] = {}
    is_cut: dict[str, bool] = {}
    place = _place(config, rng, clip)
    visible = _shown(list(found), config.modality_dropout, rng)
    for name in (*visible, *(name for name in found if name not in visible)):
        if name not in visible and arrays:
            break  # it is hidden; where nothing is in what is visible, it is not
        section = config.ordered_inputs[name] if place is None else config.ordered_inputs[name].at(place)
        try:
            prepared = _checked(section, section.prepare(found[name], rng))
        # Any: a decoder that meets bytes which nobody thought of may raise whatever it likes, and a plug-in exit.
        except (Exception, SystemExit) as error:
            if fault := fault_in_sample(error):
                raise fault from error
            if isinstance(error, SystemExit):
                raise  # of a signal's handler: who wants to leave leaves
            # An input of several members names the one that it speaks of.
            where = f".{next(iter(found[name].values())).suffix}: " if len(section.roles) == 1 else ""
            raise BadMemberError(name, f"{where}{one_line(error)}") from error
        if not prepared.length:  # such as a text in which a tokenizer finds no token
            if name in config.require:
                raise BadMemberError(name, "has nothing in it, and data.require asks for it")
            continue
        arrays[name], lengths[name], is_cut[name] = prepared.array, prepared.length, prepared.is_cut
        if prepared.target is not None:
            targets[name] = prepared.target
        if prepared.coordinates is not None:
            arrays[f"{name}.{COORDINATES}"] = prepared.coordinates
    known = notes(members, records, config.labels, config.values)
    targets |= {name: np.array(numbers, np.float32) for name, numbers in known.values.items()}
    return Sample(arrays, lengths, known.label, known.weight, known.labels, known.named_labels, targets, is_cut)


def _place(config: DataConfig, rng: np.random.Generator | None, clip: int) -> float | None:
    """Return where in time the sample is read, None where each input decides."""
    if config.clips is None:
        return None
    # The first draw of a sample, so that all of its inputs have the same.
    return config.clips.place(clip) if rng is None else float(rng.random())


def _checked(section: Modality, prepared: Prepared) -> Prepared:
    """Return what a modality made of a sample; PluginError where one of a plug-in made something else than it says."""
    # Ours are held to what they say by a test; comparing each sample would cost every run.
    if is_of_plugin(type(section)):
        method = f"{place_of(type(section).prepare)}: {type(section).__name__}.prepare"
        if not isinstance(prepared, Prepared):
            raise PluginError(f"{method} returned {type(prepared).__name__}, expected Prepared(array, length)")
        found, expected = _kind(prepared.array), f"{section.dtype} {list(section.shape)}"
        if found != expected:
            raise PluginError(f"{method} made an array of {found}, its shape and dtype say {expected}")
        if not (isinstance(prepared.length, int | np.integer) and 0 <= prepared.length <= section.shape[0]):
            raise PluginError(f"{method} made the length {prepared.length}, expected 0 to {section.shape[0]}")
        target = "none" if section.target is None else f"{section.target[1]} {list(section.target[0])}"
        if (made := "none" if prepared.target is None else _kind(prepared.target)) != target:
            raise PluginError(f"{method} made a target of {made}, its target says {target}")
    return prepared


def _kind(array: object) -> str:
    """Return type and shape of an array, in words."""
    return f"{getattr(array, 'dtype', type(array).__name__)} {list(getattr(array, 'shape', ()))}"


def _found(config: DataConfig, members: Mapping[str, bytes | memoryview]) -> "dict[str, Members]":
    """Return what each input reads of a sample, in the order of their names, without those that it lacks."""
    found = {}
    for name, section in config.ordered_inputs.items():
        try:
            read = select(section, members)
        except ValueError as error:
            raise BadMemberError(name, f"input {name}: {error}") from error
        if read:
            found[name] = read
        elif name in config.require and any(field for _, field in fitting(section.patterns, members)):
            # An index knows the members of a sample, not what is in them.
            raise BadMemberError(name, f"lacks {' and '.join(section.patterns)}, which data.require asks for")
    return found


def _shown(present: list[str], dropout: Mapping[str, float], rng: np.random.Generator | None) -> list[str]:
    """Return the inputs that training does not hide; where all would be hidden, one at random stays."""
    if rng is None or not present or not any(dropout.values()):
        return present
    # One draw for each input that the sample has, also for those that are never hidden: a change of one probability
    # then changes nothing for the others.
    draws = rng.random(len(present))
    shown = [name for name, draw in zip(present, draws, strict=True) if draw >= dropout.get(name, 0)]
    return shown or [present[rng.integers(len(present))]]
