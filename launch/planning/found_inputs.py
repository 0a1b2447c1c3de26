"""The inputs that samples of shards have, each with the members that it reads, under names that a run takes.

jpg, png in one sample           jpg, png       two inputs: no input reads two members
left.jpg here, left.png there    left           one input of both
first.png, second.png, no flo    first, second  pictures: a pair is of use with its motion
json with texts                  caption        fields whose texts have several words
npz with several arrays          eeg, field     one input an array
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from data_shards.building.inspection.spread_samples import Members
from data_shards.config import ALL
from data_shards.format.members import RECORD, fitting
from data_shards.modalities.decoding.numbers import npz_archive
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.catalogue import inputs_of
from data_shards.modalities.kinds.flow import MOTION, SECOND, FlowConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.modality import Modality

_ODD = re.compile(r"[^\w -]")


def found_inputs(samples: Sequence[Members]) -> list[tuple[str, Modality]]:
    """Return the inputs of samples with such members, each under a name of its own."""
    there = {suffix for members in samples for suffix in members}
    archives = {suffix: arrays for suffix in there if len(arrays := _arrays(samples, suffix)) > 1}
    # An archive of several arrays is no array: each of its own is an input, added below.
    found = list(inputs_of(there - archives.keys()).items())
    found = [each for named in found for each in _without_motion(*named, samples)]
    found = [each for named in _merged(found, samples) for each in _apart(*named, samples)]
    for suffix, arrays in sorted(archives.items()):
        found += [(name, ArrayConfig(members=f"{suffix}/{name}")) for name in arrays]
    found += [(field, TextConfig(members=f"{RECORD}.{field}")) for field in _texts(samples)]
    return list(_named(found))


def usable(name: str) -> str:
    """Return a name that a run takes for an input or an output."""
    found = _ODD.sub("_", name).lstrip(" ") or "_"
    # Results have that name for all inputs together.
    return f"{found}_" if found == ALL else found


def _named(found: Iterable[tuple[str, Modality]]) -> Iterator[tuple[str, Modality]]:
    taken: set[str] = set()
    for wanted, section in found:
        name = usable(wanted)
        while name in taken:
            name = f"{name}_{section.modality}"
        taken.add(name)
        yield name, section


def _most(samples: Sequence[Members], suffixes: Sequence[str], least: int) -> bool:
    """Return whether most of the samples that have any of the members have so many."""
    counts = [sum(suffix in members for suffix in suffixes) for members in samples]
    there = [count for count in counts if count]
    return 2 * sum(count >= least for count in there) > len(there)


def _suffixes(patterns: Sequence[str], samples: Sequence[Members]) -> list[str]:
    there = {suffix for members in samples for suffix in members}
    return [suffix for suffix, _ in fitting(patterns, there)]


def _without_motion(name: str, section: Modality, samples: Sequence[Members]) -> Iterator[tuple[str, Modality]]:
    """Yield a pair of frames, or its frames as pictures where most samples have no motion."""
    if not isinstance(section, FlowConfig):
        yield name, section
        return
    roles = {role: _suffixes(patterns, samples) for role, patterns in section.roles.items()}
    num_frames = sum(any(suffix in members for suffix in roles[SECOND]) for members in samples)
    num_motions = sum(any(suffix in members for suffix in roles[MOTION]) for members in samples)
    if num_frames and 2 * num_motions >= num_frames:
        yield name, section
        return
    frames = [suffix for role, suffixes in roles.items() if role != MOTION for suffix in suffixes]
    yield from ((suffix.partition(".")[0], replace(ImageConfig.lenient(), members=suffix)) for suffix in frames)


def _merged(found: Sequence[tuple[str, Modality]], samples: Sequence[Members]) -> list[tuple[str, Modality]]:
    """Return the inputs, with one for members of one name that are of several formats, each in other samples."""
    groups: dict[tuple[str, str], list[tuple[str, Modality]]] = {}
    for name, section in found:
        # Without members an input is the one of its modality's usual suffixes, which have no stem.
        stem = str(section.members).rpartition(".")[0]
        groups.setdefault((section.modality, stem), []).append((name, section))
    merged: list[tuple[str, Modality]] = []
    for group in groups.values():
        members = [str(section.members) for _, section in group]
        if group[1:] and not _most(samples, members, 2):
            merged.append((group[0][0], replace(group[0][1], members=tuple(members))))
        else:
            merged += group
    return merged


def _apart(name: str, section: Modality, samples: Sequence[Members]) -> Iterator[tuple[str, Modality]]:
    """Yield the input, or one for each of its members where most samples have several."""
    suffixes = _suffixes(section.patterns, samples)
    if section.members or not _most(samples, suffixes, 2):
        yield name, section
    else:
        yield from ((suffix.replace(".", "_"), replace(section, members=suffix)) for suffix in suffixes)


def _arrays(samples: Sequence[Members], suffix: str) -> list[str]:
    """Return the names of the arrays in an archive, of the first sample in which it can be read."""
    for content in (members[suffix] for members in samples if suffix.endswith("npz") and suffix in members):
        try:
            with npz_archive(content) as archive:
                # From the archive's table of contents: no array is unpacked for its name.
                return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        except ValueError:
            continue  # a bad sample, which the run will count
    return []


def numbers_in_records(samples: Sequence[Members]) -> list[str]:
    """Return the fields of records that are numbers in most samples, which `data index` may make targets."""
    # True is an int to Python, and no quantity.
    return _fields(samples, lambda value: isinstance(value, int | float) and not isinstance(value, bool))


def unread_in_records(samples: Sequence[Members], known: Collection[str]) -> list[str]:
    """Return the fields of most samples' records that are neither texts of several words nor numbers nor known."""
    others = {*_texts(samples), *numbers_in_records(samples), *known}
    return [field for field in _fields(samples, lambda value: value is not None) if field not in others]


def _texts(samples: Sequence[Members]) -> list[str]:
    """Return the fields of records that hold several words in most samples: an address or a name is one."""
    return _fields(samples, lambda value: isinstance(value, str) and len(value.split()) > 1)


def _fields(samples: Sequence[Members], suits: Callable[[object], bool]) -> list[str]:
    """Return the fields of records whose values are suitable in most samples."""
    counts: Counter[str] = Counter()
    records = [members[RECORD] for members in samples if RECORD in members]
    for record in records:
        try:
            fields = json.loads(record)
        except (ValueError, RecursionError):
            continue  # a bad sample, which the run will count
        if isinstance(fields, dict):
            counts.update(field for field, value in fields.items() if suits(value))
    return sorted(field for field, count in counts.items() if 2 * count > len(records))
