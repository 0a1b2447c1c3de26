"""Safe display of external text (keys, class names, paths, URLs): no control characters, no secrets."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Besides the control characters: what reverses the writing direction, what ends a line, and lone surrogates, which no
# terminal's encoding takes. Joined emoji and the blanks of other scripts stay.
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNSHOWABLE_IN_LINES = re.compile(f"(?!\n){_UNSHOWABLE.pattern}")
# Host, user and password end at the first of these (RFC 3986, section 3.2).
_AUTHORITY_END = re.compile(r"[/?#]")
_PORT = re.compile(r"[^:]*(:\d*)?$|\[")
_BEHIND_A_URL = ":;,.!)]}>'\""


def printable(text: str) -> str:
    """Return the text as one line that is safe in a terminal, a picture or a page; secrets are masked."""
    return _UNSHOWABLE.sub(_escaped, masked(text))


def printable_lines(text: str) -> str:
    """Return the text with its line ends, otherwise as `printable`."""
    return _UNSHOWABLE_IN_LINES.sub(_escaped, masked(text))


def masked(text: str) -> str:
    """Return the text with *** in place of the user and password, the query and the fragment of every URL."""
    # By words and without one pattern for all: text from outside may be made to take such a pattern for ever.
    return re.sub(r"\S+", lambda word: "://".join(_masked_parts(word[0])), text) if "://" in text else text


@contextmanager
def unknown_glyphs_as_boxes() -> Iterator[None]:
    """Let a picture show a box for a character that its font lacks, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
        yield


def _escaped(character: re.Match[str]) -> str:
    return ascii(character[0])[1:-1]


def _masked_parts(word: str) -> Iterator[str]:
    """Yield what lies between the :// of a word."""
    scheme, *parts = word.split("://")
    yield scheme
    for part in parts:
        authority = _AUTHORITY_END.split(part, maxsplit=1)[0]
        # A password may have a / or ? in it that should have been escaped: what is before it then is no host and port.
        secret = authority if "@" in authority or _PORT.match(authority) else part
        shown = f"***@{part[secret.rindex('@') + 1 :]}" if "@" in secret else part
        place = min((shown.index(mark) for mark in "?#" if mark in shown), default=len(shown)) + 1
        yield shown[:place] + _masked_query(shown[place:])


def _masked_query(query: str) -> str:
    return f"***{query[len(query.rstrip(_BEHIND_A_URL)) :]}" if query.rstrip(_BEHIND_A_URL) else query
