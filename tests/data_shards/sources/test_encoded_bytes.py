"""Text that is no text: what only looks like other bytes is taken, and what is other bytes in letters is refused."""

import base64
import binascii
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_shards.sources import table, text
from data_shards.sources.parsing.encoded_bytes import kind_of

BYTES = np.random.default_rng(0).bytes(3000)
PDF = "%PDF-1.4\n% made by hand\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"


def wrapped(letters: bytes, length: int) -> str:
    return "\n".join(letters.decode()[at : at + length] for at in range(0, len(letters), length)) + "\n"


def uuencoded(data: bytes) -> str:
    lines = [binascii.b2a_uu(data[at : at + 45]).decode() for at in range(0, len(data), 45)]
    return f"begin 644 photo.jpg\n{''.join(lines)}`\nend\n"


LETTERS = base64.b64encode(BYTES)
ENCODED = {
    "pdf": PDF,
    "pdf of Windows": PDF.replace("\n", "\r\n"),
    "postscript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "rtf": r"{\rtf1\ansi {\b bold} text}",
    "pickled list": pickle.dumps(["a", 1, None], protocol=0).decode(),
    "pickled object": pickle.dumps({"when": complex(1, 2), "what": {"b": [1.5]}}, protocol=0).decode(),
    "pickled array": pickle.dumps(np.arange(3), protocol=0).decode("latin-1"),
    "large pickle": pickle.dumps([str(number) for number in range(5000)], protocol=0).decode(),
    "uuencoded": uuencoded(BYTES),
    "base64": wrapped(LETTERS, 76),
    "base64 of Windows": wrapped(LETTERS, 64).replace("\n", "\r\n"),
    "base64 in one line": LETTERS.decode(),
    "begin-base64": f"begin-base64 644 photo.jpg\n{wrapped(LETTERS, 60)}====\n",
    "key": f"-----BEGIN PRIVATE KEY-----\n{wrapped(LETTERS, 64)}-----END PRIVATE KEY-----\n",
    "old key": f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{wrapped(LETTERS, 64)}-----END RSA",
    "message": f"-----BEGIN PGP MESSAGE-----\nVersion: 2\n\n{wrapped(LETTERS, 64)}=abcd\n-----END PGP MESSAGE-----\n",
    "picture": "P3\n# by hand\n2 1\n255\n255 0 0  0 0 255\n",
    "points": "ply\nformat ascii 1.0\nelement vertex 1\n",
    "archive": "!<arch>\na.txt/          0           0     0     644     2         `\nhi",
}
TEXTS = {
    "on PDF": "%PDF-1.4 is the header of a file. What follows are objects, such as 1 0 obj in a line of their own.\n",
    "program in PostScript": "%!\n/Times-Roman findfont 12 scalefont setfont 72 720 moveto (hi) show showpage\n",
    "TeX": "% !TeX root = main.tex\n\\documentclass{article}\n",
    "prose that begins with begin": "begin 644 times and you will have begun often\nOnce more.\n",
    "rule": "begin 644 rules\nM is the thirteenth letter\n",
    "letters as opcodes": "I\n.\n",
    "numbers": "I1\nI2\nI3\n.",
    "a stop": ".",
    "nothing": "N.",
    "poem": "(lines of a poem\np0\ncount for nothing.",
    "dna": ("ACGTTGCA" * 10 + "\n") * 40,
    "protein": ("MKVLAAGIVGLCAKAYLSNPDEQRTWHF" * 2 + "\n") * 40,
    "hashes": "".join(f"{binascii.hexlify(BYTES[at : at + 32]).decode()}\n" for at in range(0, 2000, 32)),
    "hashes in base64": "".join(f"{base64.b64encode(BYTES[at : at + 64]).decode()}\n" for at in range(0, 2000, 64)),
    "tokens": "".join(f"{base64.urlsafe_b64encode(BYTES[at : at + 48]).decode()}\n" for at in range(0, 2000, 48)),
    "one long word": "Donaudampfschifffahrtsgesellschaft" * 20,
    "paths": "/usr/share/doc/Readme\n/usr/share/doc/Copying\n",
    "certificate explained": "-----BEGIN CERTIFICATE-----\nThis line begins a certificate; base64 follows it.\n",
    "signed": "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nI agree to all of it.\n",
    "P1": "P1 is the first of 3 players, and P2 the second.\n",
    "ranking": "P1 10 20 points\nP2 30 40 points\n",
    "ply": "ply\nformat of wood in layers\n",
    "csv": "text,label\na,1\n",
    "json": '{"text": "a"}\n',
    "html": "<!doctype html>\n<p>hi\n",
    "svg": '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>\n',
    "log": "2026-11-28 10:00:00 INFO started\n" * 5,
    "tab separated": "a\tb\n1\t2\n",
    "empty lines": "\n\n\n",
}


@pytest.mark.parametrize("name", ENCODED)
def test_bytes_in_letters_are_refused_and_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text(ENCODED[name], newline="")
    with pytest.raises(ValueError, match=r"a\.txt: line 1: begins as .*, which is not plain text; write its text as"):
        text.build({"train": tmp_path / "a.txt"}, tmp_path / "out")
    (tmp_path / "table.csv").write_text("text,label\na.txt,0\n")
    with pytest.raises(ValueError, match=r"line 2.*a\.txt.*begins as"):
        table.build(tmp_path / "table.csv", tmp_path / "out")


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_text_whatever_it_speaks_of(name: str) -> None:
    assert not kind_of(TEXTS[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("postscript", "a PostScript document"),
        ("rtf", "a rich text document (RTF)"),
        ("pickled list", "a pickle"),
        ("uuencoded", "uuencoded bytes"),
        ("base64", "bytes in base64"),
        ("begin-base64", "bytes in base64 (uuencoded)"),
        ("key", "bytes in base64 (PEM)"),
        ("picture", "a picture (PNM)"),
        ("points", "a point cloud (PLY)"),
        ("archive", "an archive (ar)"),
    ],
)
def test_what_it_is_is_told(name: str, kind: str) -> None:
    assert kind_of(ENCODED[name]) == kind


# Of all kinds of letters.
LINE = "Ab1+" * 12


@pytest.mark.parametrize(
    ("start", "is_base64"),
    [
        (f"{LINE}\n{LINE}\n", True),
        (f"{LINE}\n{LINE[:4]}", True),
        (f"{LINE}\n{LINE[:2]}==\n", True),
        (f"{LINE}\r\n{LINE}\r\n", True),
        # Lines of 44 letters, or not of whole bytes, or of two lengths.
        (f"{LINE[:44]}\n{LINE[:44]}\n", False),
        (f"{LINE}A\n{LINE}A\n", False),
        (f"{LINE}\n{LINE}Ab1+\n", False),
        (f"{LINE}\n{LINE[:44]}\n{LINE}\n", False),
        (f"{LINE}\n{LINE[:-1]} \n{LINE}", False),
        (f"{LINE}\n{LINE[:-3]}=b=\n", False),
        # One line must be longer than any word.
        ("Ab1+" * 64, True),
        ("Ab1+" * 63, False),
        # Letters of one kind are missing.
        *((f"{LINE.replace(letter, other)}\n" * 2, False) for letter, other in ("Ab", "bA", "1A", "+A")),
    ],
)
def test_lines_are_base64_where_they_are_of_one_length_and_of_all_letters(start: str, is_base64: bool) -> None:
    assert kind_of(start) == ("bytes in base64" if is_base64 else "")


@pytest.mark.parametrize(
    ("line", "is_encoded"),
    [
        ("#AAAA", True),
        ("#AAA", False),
        ("#AAAAA", False),
        ("$AAAAAAAA", True),
        ("$AAAAAAA", False),
        ("`", True),
        ("", False),
    ],
)
def test_a_line_of_uuencode_is_as_long_as_its_first_letter_says(line: str, is_encoded: bool) -> None:
    assert kind_of(f"begin 644 a.jpg\n{line}\n") == ("uuencoded bytes" if is_encoded else "")


def test_a_pickle_ends_with_its_stop() -> None:
    pickled = pickle.dumps(["a"], protocol=0).decode()
    assert kind_of(f"{pickled} \n") == "a pickle"
    assert kind_of(f"{pickled}and more") == ""
    assert kind_of(pickled[:-1]) == ""
    # Cut in the middle, as the start of a long file is: a pickle after a thousand of its opcodes, and not before.
    long = pickle.dumps([str(number) for number in range(5_000)], protocol=0).decode()
    assert kind_of(long[: len(long) // 2]) == "a pickle"
    assert kind_of(long[:1_000]) == ""


def test_the_pages_and_sources_of_this_product_are_text() -> None:
    here = Path(__file__).parents[3]
    files = [
        *here.glob("*.md"),
        *here.glob("docs/*.md"),
        *here.glob("*/*.py"),
        *here.glob("configs/*.yaml"),
        here / "LICENSE",
    ]
    assert [path for path in files if kind_of(path.read_text())] == []
    assert len(files) > 50
