"""What a run reads, by the names of files and of the columns of a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_shards.building.raw_sample import Content, File, Literal
from data_shards.files.quoting import shown
from data_shards.format.members import RECORD, fitting, suffix_and_field
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.modality import MAIN, Modality
from data_shards.sources.parsing.plain_text import TextFile, content_suffix
from data_shards.sources.table import FIELD, FILES, MAX_PATH, MEMBER, PAIR

FRAMES = PAIR[:2]
"""The columns of a pair of frames, without that of the motion."""


class RunInputs:
    """The inputs of a run, and under which suffix each would find a file in a sample."""

    def __init__(self, inputs: Mapping[str, Modality]) -> None:
        self._inputs = inputs

    def member(self, path: Path) -> str | None:
        """Return the suffix under which a file is read by its name; None where it is not. ValueError where by two."""
        try:
            return _member(path.name.lower(), self._inputs)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @staticmethod
    def file(path: str, suffix: str) -> Content:
        """Return the content of a file that is read under a suffix."""
        # On the disk a text may be compressed or in UTF-16; the members of a sample are UTF-8.
        return TextFile(path) if suffix.rpartition(".")[2] == "txt" else File(path)

    def reads(self, column: str) -> bool:
        """Return whether a column of a table holds something of a sample that the run reads."""
        if column in self._inputs or self._roles_of(column):
            return True
        patterns = [pattern for each in self._inputs.values() for of in each.roles.values() for pattern in of]
        if column.startswith(FIELD):
            name = column.removeprefix(FIELD)
            return any(suffix_and_field(each)[1].partition(".")[0] == name for each in patterns)
        if column.startswith(MEMBER) or column in FRAMES:
            name = column.removeprefix(MEMBER).lower()
            return any(each.startswith((f"{name}.", "*")) for each in patterns)
        return self._of_column(column) is not None

    def of_cell(self, column: str, cell: object, folder: Path) -> tuple[str, Content]:
        """Return the suffix under which the content of a cell is read, perhaps with a field, and the content."""
        section = self._of_column(column)
        if isinstance(section, TextConfig):
            text = cell.decode() if isinstance(cell, bytes) else text_of(column, cell)
            # As in the tables of `data build`: a text, or the path of one.
            if not (len(text) <= MAX_PATH and content_suffix(text.rpartition("/")[2]) == ".txt"):
                return _of_ending(section, "txt") or section.patterns[0], Literal(text.encode(), "txt")
        path = text_of(column, cell)
        if "://" in path:
            raise ValueError(f"{column} {shown(path)} is a URL; download it and write its path")
        name = Path(path).name.lower()
        if patterns := self._roles_of(column):
            suffix: str | None = _of_patterns(patterns, name.rpartition(".")[2], ())
        elif section is None:
            suffix = f"{column.removeprefix(MEMBER).lower()}.{name.rpartition('.')[2]}"
        else:
            suffix = _member(name, {column: section})
        if not suffix:
            wanted = _endings(section) if section else ", ".join(f".{pattern}" for pattern in patterns)
            raise ValueError(f"{column}: {shown(path)} is no file that it reads ({wanted}); convert it")
        return suffix, self.file(str(folder / path), suffix)

    def words(self) -> str:
        """Return what is read, for a message."""
        return "; ".join(f"{name}: {_endings(section)}" for name, section in self._inputs.items())

    def columns(self) -> str:
        """Return the columns of a table that are read, for a message."""
        return ", ".join(self._inputs)

    def _roles_of(self, column: str) -> tuple[str, ...]:
        """Return the patterns of what a column NAME.ROLE is for, such as frames.second; nothing where it is none."""
        name, _, role = column.partition(".")
        return self._inputs[name].roles.get(role, ()) if name in self._inputs and role else ()

    def _of_column(self, column: str) -> Modality | None:
        """Return the input whose name a column has or, of `data build table`, whose modality."""
        if column in self._inputs:
            return self._inputs[column]
        return next((each for each in self._inputs.values() if column in FILES and column == _base(each)), None)


def text_of(column: str, cell: object) -> str:
    """Return a cell that is a text; ValueError where it is none."""
    if not isinstance(cell, str):
        raise ValueError(f"{column} expected a text, got {type(cell).__name__} {shown(cell)}")  # noqa: TRY004 - a slip
    return cell


def _member(name: str, inputs: Mapping[str, Modality]) -> str | None:
    parts = name.split(".")[1:]
    # The longest first: a.left.jpg is meant for the input that reads left.jpg, not for one that reads any jpg.
    tails = [".".join(parts[start:]) for start in range(len(parts))]
    for tail in tails:
        if any(any(fitting(section.roles[MAIN], [tail])) for section in inputs.values()):
            return tail
    if not tails:
        return None
    # A run that reads eeg.npy alone means any .npy.
    meant = {input_: suffix for input_, each in inputs.items() if (suffix := _of_ending(each, tails[-1]))}
    if len(set(meant.values())) > 1:
        raise ValueError(f"may be {' or '.join(meant)}; name it in a table with the columns {', '.join(meant)}")
    return next(iter(meant.values()), None)


def _of_ending(section: Modality, ending: str) -> str:
    """Return a suffix, perhaps with a field, under which an input reads a file with this ending; empty for none."""
    return _of_patterns(section.roles[MAIN], ending, section.usual)


def _of_patterns(patterns: Sequence[str], ending: str, usual: Sequence[str]) -> str:
    for pattern in patterns:
        suffix, field = suffix_and_field(pattern)
        if suffix.rpartition(".")[2] == ending or (field and suffix.endswith(RECORD) and ending in usual):
            # Any name that the pattern matches will do: the member is in this sample alone.
            return suffix.replace("*", "file") + (f"/{field}" if field else "")
    return ""


def _base(section: Modality) -> str:
    """Return the modality of ours that a section is of or derived from, by its name in a table."""
    names = [getattr(base, "modality", "") for base in type(section).__mro__]
    return next((name for name in names if name in FILES), section.modality)


def _endings(section: Modality) -> str:
    return ", ".join(f".{pattern}" for pattern in section.roles[MAIN])
