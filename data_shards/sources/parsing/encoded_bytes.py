"""Files whose characters are no text although each is valid: documents, pickles, pictures and bytes written as letters.

Only what cannot be anything else is named. HTML, TeX, source code, tables and logs are text.
"""

import pickle
import pickletools
import re
from itertools import islice

_STARTS = {
    # With an object: a page on PDF may begin with the same words.
    "a PDF document": re.compile(r"%PDF-\d\.\d\s.*?^\d+ \d+ obj\b", re.DOTALL | re.MULTILINE),
    # Only what a program wrote: a PostScript program of a person begins with %! alone.
    "a PostScript document": re.compile(r"%!PS-Adobe-\d"),
    "a rich text document (RTF)": re.compile(r"\{\\rtf\d"),
    "an archive (ar)": re.compile(r"!<arch>\n"),
    "a BinHex file": re.compile(r"\(This file must be converted with BinHex"),
    "a point cloud (PLY)": re.compile(r"ply\r?\nformat (ascii|binary)"),
    "a picture (PNM)": re.compile(r"P[1-3]\s+(#[^\n]*\n\s*)*\d+\s+\d+\s[\s\d]*$"),
    "bytes in base64 (PEM)": re.compile(
        r"-----BEGIN [A-Z0-9 ]+-----\r?\n([\w-]+: [^\n]*\n)*\s*"
        r"([A-Za-z0-9+/]{64}\r?\n|[A-Za-z0-9+/]{40,64}={0,2}\r?\n-----END)"
    ),
    "bytes in base64 (uuencoded)": re.compile(r"begin-base64 [0-7]{3,4} [^\n]+\n[A-Za-z0-9+/]{4,}={0,2}\r?\n"),
}
_UUENCODED = re.compile(r"begin [0-7]{3,4} [^\n]+\n([ -`]*)\r?\n")
_BASE64_LINE = re.compile(r"[A-Za-z0-9+/]+")
_MIN_LINE, _MIN_ONLY_LINE = 48, 256
_MOST_OPCODES = 1000


def kind_of(start: str) -> str:
    """Return what a file is, by its first characters, in words; nothing where it is text."""
    for kind, pattern in _STARTS.items():
        if pattern.match(start):
            return kind
    if _is_uuencoded(start):
        return "uuencoded bytes"
    if _is_base64(start):
        return "bytes in base64"
    return "a pickle" if _is_pickle(start) else ""


def _is_uuencoded(start: str) -> bool:
    first = _UUENCODED.match(start)
    line = first[1] if first else ""
    # The first letter says how many bytes the line has, each three of them four letters.
    return bool(line) and len(line) == 1 + -(-(ord(line[0]) - 32 & 63) // 3) * 4


def _is_base64(start: str) -> bool:
    """Return whether there is nothing but lines of one length in letters of base64.

    A sequence of DNA has no digits, a hash no large letters, a list of tokens neither + nor /.
    """
    *lines, last = start.rstrip().split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    length = len(lines[0]) if lines else len(last)
    if length < (_MIN_LINE if lines else _MIN_ONLY_LINE) or length % 4 or len(last) > length:
        return False
    if any(len(line) != length or not _BASE64_LINE.fullmatch(line) for line in lines):
        return False
    return bool(_BASE64_LINE.fullmatch(last.rstrip("="))) and all(
        re.search(letters, start) for letters in ("[A-Z]", "[a-z]", "[0-9]", "[+/]")
    )


def _is_pickle(start: str) -> bool:
    """Return whether it reads as opcodes that store something, to a stop at its end or for very long."""
    names = []
    try:
        for opcode, _, place in islice(pickletools.genops(start.encode()), _MOST_OPCODES):
            names.append(opcode.name)
            if opcode.name == "STOP" and start[(place or 0) + 1 :].strip():
                return False
    except (ValueError, pickle.UnpicklingError, UnicodeError, IndexError):
        return False
    return "PUT" in names and (names[-1] == "STOP" or len(names) == _MOST_OPCODES)
