"""The lists that say which synset each of ImageNet's validation images shows, in the forms in which they are found."""

import re
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path

from data_shards.building.builder import Tell
from data_shards.files.quoting import counted, shown
from data_shards.sources.parsing import line_list, plain_text

SYNSET = re.compile(r"n\d{8}")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
"""Of the development kit: a number for each image, in the order of their names."""
MAPS = ("meta.mat", "map_clsloc.txt")
"""Files of development kits with the synset of each number."""
SOLUTION = "LOC_val_solution.csv"
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
NUMBERS = "val.txt"
NAMES = (GROUND_TRUTH, *MAPS, SOLUTION, SYNSETS, NUMBERS)
"""The names of all lists, beside the packed development kit."""
# Later kits have the same list under a longer name. That of 2010 is of other images.
_TRUTH = re.compile(r"ILSVRC201[2-9]_(clsloc_)?validation_ground_truth\.txt")
KIT = re.compile(r"ILSVRC201[2-9]_devkit.*\.(tar\.gz|tgz|tar)")
MAX_BYTES = 1 << 26
"""Larger lists are refused: those of ImageNet have 2 MB at the most."""
Answers = Callable[[str], str | None]
"""Gives the synset of a validation image by its name; None where a list has no such image."""


def synsets(paths: Iterable[Path], classes: Sequence[str], tell: Tell) -> Answers:
    """Return what gives the synset of a validation image; ValueError where there is no list, or two of them differ.

    `paths` are the files among which lists are looked for; `classes` are the synsets in their order, whose numbers some
    lists have. A list that cannot be read is reported, and is not needed where another can.
    """
    answers: dict[Path, Answers] = {}
    failed: list[ValueError] = []
    for path, read in _readers(_by_file_name(paths), classes):
        try:
            answers[path] = read()
        except ValueError as error:
            failed.append(error)
    if not answers:
        raise failed[0]
    for fault in failed:
        tell(f"{fault}; it is not needed beside {next(iter(answers)).name}")
    return partial(_agreed, answers)


def _agreed(answers: Mapping[Path, Answers], image: str) -> str | None:
    """Return what all lists say that know an image; ValueError where they differ, or none knows it and one must."""
    found: dict[Path, str] = {}
    missing: list[ValueError] = []
    for path, of in answers.items():
        try:
            synset = of(image)
        except ValueError as error:
            missing.append(error)
        else:
            found |= {path: synset} if synset else {}
    # A list of a part of the images is of use where another has the rest.
    if missing and not found:
        raise missing[0]
    if len(set(found.values())) > 1:
        said = " and ".join(f"{path} says {synset}" for path, synset in found.items())
        raise ValueError(f"{shown(image)}: {said}; remove the list that is not of these images")
    return next(iter(found.values()), None)


def is_list(name: str) -> bool:
    """Return whether a file of this name says what images show, or belongs to one that does."""
    return _usual(name) in NAMES or KIT.fullmatch(name) is not None


def _usual(name: str) -> str:
    return GROUND_TRUTH if _TRUTH.fullmatch(name) else name


def _by_file_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the lists that are there by the names of their files; ValueError where two of one name differ."""
    found: dict[str, Path] = {}
    for path in paths:
        if is_list(path.name):
            other = found.setdefault(_usual(path.name), path)
            if other is not path and _words(other) != _words(path):
                raise ValueError(f"{other} and {path} differ; remove the one that is not of these images")
    return found


def _readers(found: Mapping[str, Path], classes: Sequence[str]) -> list[tuple[Path, Callable[[], Answers]]]:
    """Return each list with what reads it, the best first; ValueError where there is none."""
    kits: list[Path | None] = [found[name] for name in sorted(found) if KIT.fullmatch(name)]
    # Lists of synsets before lists of numbers: there are two numberings, and synsets need neither.
    readers: list[tuple[Path | None, Callable[[Path], Answers]]] = [
        (found.get(SOLUTION), lambda path: _by_name(path, ",", classes)),
        (found.get(SYNSETS), lambda path: _by_place(_by_line(_read(path), path), path)),
        *((kit, lambda kit: _of_kit(kit, found)) for kit in kits or [found.get(GROUND_TRUTH)]),
        (found.get(NUMBERS), lambda path: _by_name(path, " ", classes)),
    ]
    there: list[tuple[Path, Callable[[], Answers]]] = [(path, partial(read, path)) for path, read in readers if path]
    if not there:
        raise ValueError(
            f"no list says what the validation images show; add {GROUND_TRUTH} with meta.mat (of the development kit), "
            f"{SOLUTION}, {SYNSETS} or {NUMBERS}"
        )
    return there


def _of_kit(path: Path, found: Mapping[str, Path]) -> Answers:
    """Return the synsets by the development kit: its list, or the kit packed, of which files may lie unpacked too."""
    contents = {name: _read(path) for name, path in found.items() if name in (GROUND_TRUTH, *MAPS)}
    if KIT.fullmatch(path.name):
        packed = _members(path)
        # By words: an unpacked list may have been given other line ends.
        if other := [name for name in contents if packed.get(name, contents[name]).split() != contents[name].split()]:
            raise ValueError(f"{found[other[0]]} is not as in {path}; remove the one that is not of these images")
        contents = {**packed, **contents}
    if GROUND_TRUTH not in contents:
        raise ValueError(f"{path}: holds no {GROUND_TRUTH}; copy the development kit again")
    if not any(name in contents for name in MAPS):
        raise ValueError(f"{path}: numbers synsets, and neither {' nor '.join(MAPS)} is there; add the one of the kit")
    # The text where both are there: meta.mat needs scipy, which is an extra.
    of_number = _of_text(contents[MAPS[1]]) if MAPS[1] in contents else _of_matlab(contents[MAPS[0]])
    numbers = _by_line(contents[GROUND_TRUTH], path)
    if unknown := [number for number in numbers if number not in of_number]:
        raise ValueError(f"{path}: number {shown(unknown[0])} is of no synset of the development kit")
    return _by_place([of_number[number] for number in numbers], path)


def _members(kit: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(kit) as tar:
            named = [(_usual(Path(member.name).name), member) for member in tar if member.isfile()]
            wanted = [(name, member) for name, member in named if name in (GROUND_TRUTH, *MAPS)]
            files = {name: tar.extractfile(member) for name, member in wanted if member.size <= MAX_BYTES}
            return {name: file.read() for name, file in files.items() if file}
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ValueError(f"{kit}: cannot be read ({error}); copy it again") from error


def _of_text(data: bytes) -> dict[str, str]:
    """Return the synset of each number, by lines such as "n02119789 1 kit_fox"."""
    # replace: only synsets and numbers are taken, and both are ASCII.
    cells = [line.split() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return _of_pairs(((row[1], row[0]) for row in cells if len(row) > 1), MAPS[1])


def _of_matlab(data: bytes) -> dict[str, str]:
    """Return the synset of each number, by the array of structures `synsets`."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError("meta.mat needs scipy: pip install scipy; or add map_clsloc.txt of a later kit") from error
    try:
        table = loadmat(BytesIO(data), squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in table.ravel()}
    # Any Exception: scipy raises whatever the parsing of a damaged file meets.
    except Exception as error:
        raise ValueError(f"meta.mat: expected synsets with ILSVRC2012_ID and WNID ({error})") from error


def _by_place(names: Sequence[str], path: Path) -> Answers:
    """Return the synset by the number in an image's name, such as ILSVRC2012_val_00000001.JPEG."""

    def synset(image: str) -> str | None:
        number = re.search(r"(\d+)\.\w+$", image)
        if not number or not 0 < int(number[1]) <= len(names):
            raise ValueError(f"{path}: has {counted(len(names), 'line')}, and none for {shown(image)}")
        return names[int(number[1]) - 1]

    return synset


def _by_name(path: Path, separator: str, classes: Sequence[str]) -> Answers:
    """Return the synset by an image's name: of lines with a name, and a synset or a number of `classes`."""
    found: list[tuple[str, str]] = []
    for name, label in _cells(_read(path), path, separator):
        # Numbers in val.txt count the sorted synsets from 0, those of the development kit an order of its own from 1.
        if label.isdecimal() and int(label) < len(classes):
            label = classes[int(label)]
        if not SYNSET.fullmatch(label):
            raise ValueError(f"{path}: {shown(name)} has {shown(label)}, which is no synset, such as n01440764")
        # Without the suffix, which Kaggle's list leaves out.
        found.append((Path(name).stem, label))
    of_name = _of_pairs(found, path)
    return lambda image: of_name.get(Path(image).stem)


def _of_pairs(pairs: Iterable[tuple[str, str]], where: Path | str) -> dict[str, str]:
    """Return the synset by name or number; ValueError where one has two."""
    found: dict[str, str] = {}
    for key, synset in pairs:
        if found.setdefault(key, synset) != synset:
            raise ValueError(f"{where}: {shown(key)} is both {found[key]} and {synset}; leave one out")
    return found


def _cells(data: bytes, path: Path, separator: str) -> list[tuple[str, str]]:
    """Return the first two cells of each line; of Kaggle's list the synset alone, without its boxes."""
    lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    rows = [line.replace("\t", " ").split(separator, 1) for line in lines]
    if bad := [row for row in rows if len(row) < 2 or not row[1].split()]:
        raise ValueError(f"{path}: {shown(separator.join(bad[0]))}: expected the name of an image and its class")
    # Kaggle's list begins with a line of column names.
    return [(row[0], row[1].split()[0]) for row in rows if row[0] != "ImageId"]


def _by_line(data: bytes, path: Path) -> list[str]:
    """Return the lines of a list whose numbers are those of the images; ValueError for one that would move others."""
    try:
        return line_list.entries(StringIO(data.decode("utf-8", "replace"), newline=None))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _words(path: Path) -> list[bytes]:
    """Return what a list says, whatever its line ends and its packing; a kit as it is."""
    return [path.read_bytes()] if KIT.fullmatch(path.name) or path.suffix == ".mat" else _read(path).split()


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: has more than {MAX_BYTES} bytes; no list of ImageNet is as long")
    return path.read_bytes() if path.suffix == ".mat" else b"".join(plain_text.blocks(path))
