"""What the loader knows of a modality: one frozen dataclass each, which is also the section of an input of that kind.

    data.inputs.photo: {modality: image, height: 224, width: 224}   ->   Image(height=224, width=224)

A section says which members of a sample it reads, the shape and the type of one sample's array, how the members become
that array, and how they are drawn for a person. Nothing else in the program asks which modality an input is of: a
further one is a file such as image.py, and a line in catalogue.py. A configuration is read without the libraries that
decode, so what needs them imports them where it is called.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from data_shards.files.problems import Problem
from data_shards.format import members as names
from data_shards.modalities.fields import content_of_field

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

T = TypeVar("T")
# A view into an extent where a shard is read: nothing is copied before it is decoded.
Content = bytes | memoryview
COORDINATES = "coordinates"
"""The role of the member that says where the cells of another one lie; NAME.coordinates is its array in a batch."""
MAIN = ""
"""The role of the member without which a sample lacks the input."""


@dataclass(frozen=True)
class Member:
    """The source of an input in a sample: a member, or a field of one."""

    suffix: str
    """The suffix as in messages, without the first dot."""
    content: Content

    def decoded(self, decode: Callable[[Content], T]) -> T:
        """Return what a decoder makes of it; its ValueError names the member."""
        try:
            return decode(self.content)
        except ValueError as error:
            raise ValueError(f".{self.suffix}: {error}") from error


Members = Mapping[str, Member]
"""Members by role."""


@dataclass(frozen=True)
class Prepared:
    """An input of one sample, ready for its batch."""

    array: "np.ndarray"
    """The decoded array, with the shape and type of the section."""
    length: int
    """Valid entries along its first axis; what follows is padding."""
    target: "np.ndarray | None" = None
    """The target of the network, if the section has one."""
    coordinates: "np.ndarray | None" = None
    """The coordinates of its cells, if the section reads them."""
    is_cut: bool = False
    """True if the sample has more entries than were read into the array. Commands print how many samples that are."""


@dataclass(frozen=True)
class Modality(ABC):
    """An input of a run. A subclass is a frozen dataclass with a field `modality: Literal["name"] = "name"`."""

    modality: str = ""
    members: str | tuple[str, ...] = ()
    """What is read of a sample: a suffix such as left.jpg, several, or patterns such as *.jpg, each with everything
    after the first dot of a name; also a field of a record (json.caption) or an array of an archive (arrays.npz/eeg).
    Empty for the usual suffixes of the modality."""

    usual: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the members that hold this modality where an input names none."""
    # Otherwise every dataset with classes would show the network, as an input, what it is asked.
    is_annotation: ClassVar[bool] = False
    """Whether its usual members say something about a sample and are none of its content: an input must ask for it."""
    has_time: ClassVar[bool] = False
    """A sample has an axis of time, and a part of it may be read that lies elsewhere on it: see `at`."""
    dtype: ClassVar[str] = "float32"
    """The type of the array, by its name in numpy and torch."""
    subsamples: ClassVar[bool] = False
    """True if a sample that is too long is read as entries spread over all of it; False if one part of it is read."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample's array."""

    @property
    def sizes(self) -> dict[str, Any]:
        """Return what a network must know of the array, by the names that its inputs have for it."""
        return {"shape": self.shape}

    @property
    def too_long(self) -> str:
        """Return what a message says of a sample that is too long, such as "longer than 512 bytes"."""
        return f"longer than {self.shape[0]} entries"

    @abstractmethod
    # A generator for each sample, by seed, epoch and position: threads, ranks and restarts draw the same.
    def prepare(self, found: Members, rng: "np.random.Generator | None") -> Prepared:
        """Return the array of a sample, varied at random where there is a generator: then the sample is for training.

        Every draw comes from the generator. Raises ValueError, which says what is wrong with the members.
        """

    @staticmethod
    @abstractmethod
    # Without a section: verify decodes whole members, whatever of them a run would read.
    def decoded_shape(role: str, content: Content) -> tuple[int, ...]:
        """Decode the whole of a member and return its shape; ValueError says what is wrong with it."""

    @staticmethod
    @abstractmethod
    def draw(axes: "Axes", found: Members) -> None:
        """Draw the members of a sample for a person; ValueError says what is wrong with them."""

    def draw_as_read(self, axes: "Axes", found: Members) -> None:
        """Draw the members of a sample as this section reads them; by default as they are."""
        self.draw(axes, found)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The patterns of the members by what they are for; MAIN has the ones without which the input is absent."""
        return {MAIN: self.patterns}

    @property
    def patterns(self) -> tuple[str, ...]:
        """The members that are asked for, or the usual ones."""
        return ((self.members,) if isinstance(self.members, str) else tuple(self.members)) or self.usual

    @property
    def target(self) -> tuple[tuple[int, ...], str] | None:
        """Shape and type of what the network is to say of the input; None where that is nothing."""
        return None

    @property
    def places(self) -> tuple[int, ...] | None:
        """The shape of the coordinates of the array's cells, where a sample brings them; None where it does not."""
        return None

    @property
    def hides(self) -> bool:
        """Whether its content gives way to the network's mask token in some samples."""
        return False

    @property
    def has_gaps(self) -> bool:
        """Whether NaN may stand in the array, which a network cannot read."""
        return False

    @property
    def asks(self) -> tuple[str, str] | None:
        """The kind of target, and the key of the section that creates it; None if there is no target."""
        return None

    @classmethod
    def fitted(cls, contents: Sequence[Content]) -> dict[str, Any]:  # noqa: ARG003 - for subclasses
        """Return the sizes of a section that suits these main members; ValueError where one is not of this kind."""
        return {}

    @classmethod
    def lenient(cls) -> Self:
        """Return a section that accepts everything decodable, to show data without the configuration of a run."""
        return cls()

    # A section of another place and not an argument of prepare(): modalities without a time need not know of places.
    def at(self, place: float) -> Self:  # noqa: ARG002 - by what has a time
        """Return the section that reads a longer sample there, from 0, its beginning, to 1, its end."""
        return self

    def of_evaluation(self) -> Self:
        """Return the section with which all splits but that of training are read."""
        return self

    def of_prediction(self) -> Self:
        """Return the section with which samples are read that bring no targets: as in an evaluation."""
        return self.of_evaluation()

    def stand_in(self, members: Mapping[str, Content]) -> tuple[str, bytes] | None:  # noqa: ARG002 - for subclasses
        """Return suffix and content of a member for what new samples lack and the network is not to see, if any."""
        return None

    def file(self, values: "np.ndarray") -> tuple[str, bytes]:
        """Return the suffix and the content of a file with an array that the network answered for this input."""
        import io

        import numpy as np

        content = io.BytesIO()
        np.save(content, values)
        return "npy", content.getvalue()

    def notes(self) -> Iterator[str]:
        """Yield what a user should know of the section before a run is made."""
        yield from ()

    @staticmethod
    def is_absent(content: Content) -> bool:  # noqa: ARG004 - for subclasses
        """Return whether a member says nothing, so that its sample lacks the input and is sound all the same."""
        return False

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the section."""
        for pattern in self.patterns:
            if sentence := names.pattern_problem(pattern):
                yield "members", sentence


def select(section: Modality, members: Mapping[str, Content]) -> Members:
    """Return what an input reads of a sample by role, nothing where the sample lacks it.

    `members` maps suffixes to bytes. Raises ValueError where two of them fit one role.
    """
    found = {}
    for role, patterns in section.roles.items():
        if (member := _chosen(section, patterns, members)) is not None:
            found[role] = member
        # Without the main member the others mean nothing: a second frame without a first is no pair.
        elif role == MAIN:
            return {}
    return found


def _chosen(section: Modality, patterns: Sequence[str], members: Mapping[str, Content]) -> Member | None:
    fitting = []
    for suffix, field in names.fitting(patterns, members):
        content = content_of_field(suffix, field, members[suffix]) if field else members[suffix]
        # A field that the record lacks, and an empty text, leave the place to another member.
        if content is not None and not section.is_absent(content):
            fitting.append(Member(f"{suffix}/{field}" if field else suffix, content))
    # A guess would train on the one or the other without a word.
    if fitting[1:]:
        raise ValueError(f"two members fit: .{fitting[0].suffix} and .{fitting[1].suffix}")
    return fitting[0] if fitting else None


def nested(**parts: Any) -> Iterator[Problem]:  # noqa: ANN401 - any part with problems of its own
    """Yield the problems of those optional parts that are set, under their names."""
    for name, part in parts.items():
        if part is not None:
            yield from ((f"{name}.{key}", sentence) for key, sentence in part.problems())
