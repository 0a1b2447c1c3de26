"""Tokens of a text, as a Hugging Face tokenizer.json makes them.

What the file says of truncation and padding, and of tokens around a text ([CLS], [SEP]), is not used: the section of an
input says how long its array is, and its tokens are those of the text alone. A special token that stands in a text is
text there, unless the model itself has it as a piece: of "[MASK]" nothing was hidden.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data_shards.files.quoting import cut
from data_shards.files.regular_file import open_regular

MAX_BYTES = 1 << 28
MAX_IDS = 1 << 24
_WORD = re.compile(r"\S+")
_KEPT_NAME = re.compile(r"[0-9a-f]{64}")
_RANDOM = ("dropout", "alpha", "nbest_size")
"""Keys of a model that draws its tokens, from generators that nobody can set."""
_PROBE = "A text, \n wörter 123."


@dataclass(frozen=True)
class Tokens:
    """A tokenizer that was read from a file."""

    path: Path
    tokenizer: Tokenizer
    vocabulary: int
    """One more than its greatest id."""
    unused: tuple[str, ...]
    """Its own rules that are not used."""

    def ids(self, text: str) -> NDArray[np.int32]:
        """Return the ids of a text; ValueError where the tokenizer fails on it."""
        return np.array(self._encoded(text).ids, np.int32)

    def ids_and_words(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the ids of a text, and the number of the word of each: a run of characters that are no white space.

        A token of white space alone has -1. ValueError where the tokenizer fails on the text.
        """
        encoded = self._encoded(text)
        word_of = np.full(len(text) + 1, -1, np.int32)
        for number, match in enumerate(_WORD.finditer(text)):
            word_of[slice(*match.span())] = number
        # Of a token with white space before a word, or of the end of one and the beginning of the next, the last one.
        words = [int(word_of[start:end].max(initial=-1)) for start, end in encoded.offsets]
        return np.array(encoded.ids, np.int32), np.array(words, np.int32)

    def _encoded(self, text: str) -> Encoding:
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except BaseException as error:
            raise _as_fault(error, "the tokenizer fails on it") from error

    def words(self, ids: Sequence[int]) -> str:
        """Return the text of some ids; an id without a token, which a network may answer, is left out."""
        known = [number for number in ids if self.tokenizer.id_to_token(number) is not None]
        try:
            return str(self.tokenizer.decode(known, skip_special_tokens=False))
        except BaseException as error:
            raise _as_fault(error, "the tokenizer has no text for its tokens") from error

    def __reduce__(self) -> tuple[object, ...]:
        # The library forgets in a pickle what is not in the file.
        return _again, (self.path, self.tokenizer.to_str(), self.vocabulary, self.unused)

    def special(self, name: str, usual: Sequence[str]) -> str | None:
        """Return the token of a name, or the first usual one where none is given; None where it has no such token."""
        named = (name,) if name else usual
        return next((each for each in named if self.tokenizer.token_to_id(each) is not None), None)


def read(path: str) -> Tokens:
    """Return the tokenizer in a file; ValueError says in one sentence what is wrong with it."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    return _read(path, (status.st_mtime_ns, status.st_size, status.st_ino))


# The stamp is a part of the key alone: a file that was changed meanwhile is read again.
@lru_cache(maxsize=16)
def _read(path: str, _stamp: tuple[int, ...]) -> Tokens:
    content = _content(path)
    try:
        says = json.loads(content)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path}: is no JSON ({cut(str(error))}); give the tokenizer.json of a tokenizer") from error
    model = says.get("model") if isinstance(says, dict) else None
    if not isinstance(model, dict):
        raise ValueError(  # noqa: TRY004 - of a file, as all that is wrong with one
            f"{path}: has no model of a tokenizer; give a tokenizer.json of Hugging Face's tokenizers"
        )
    for key in _RANDOM:
        if model.get(key):
            raise ValueError(
                f"{path}: draws tokens at random (model.{key} = {model[key]}), by no seed of the run, which would not "
                f"resume exactly; set {key} to null in a copy of the file"
            )
    tokenizer = _built(path, content)
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    # By the greatest and not by their number: ids may have gaps.
    vocabulary = max(ids, default=-1) + 1
    if not 0 < vocabulary <= MAX_IDS:
        raise ValueError(f"{path}: has ids up to {vocabulary - 1} for {len(ids)} tokens, expected 1 to {MAX_IDS} ids")
    unused = tuple(key for key in ("truncation", "padding") if says.get(key))
    if tokenizer.num_special_tokens_to_add(is_pair=False):
        unused = (*unused, "tokens around a text")
    return Tokens(Path(path), tokenizer, vocabulary, unused)


def _content(path: str) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path}: is larger than {MAX_BYTES} bytes, and no tokenizer is")
    # A run keeps its copy by the hash of its bytes (configs/input_files.py).
    if _KEPT_NAME.fullmatch(Path(path).stem) and hashlib.sha256(content).hexdigest() != Path(path).stem:
        raise ValueError(
            f"{path}: is not the file that the run was made with, whose hash is its name; copy that one back"
        )
    return content


def _built(path: str, content: bytes) -> Tokenizer:
    try:
        with _without_panic_messages():
            tokenizer = _set(Tokenizer.from_str(content.decode()))
            _try(tokenizer)
    except BaseException as error:
        raise _as_fault(error, f"{path}: is no tokenizer.json that tokenizers can read") from error
    return tokenizer


def _set(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # What looks like a special token in a text is text: nobody hid anything there.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _again(path: Path, content: str, vocabulary: int, unused: tuple[str, ...]) -> Tokens:
    return Tokens(path, _set(Tokenizer.from_str(content)), vocabulary, unused)


def _try(tokenizer: Tokenizer) -> None:
    """Tokenize a text, to find what no text can be tokenized by; one that it does not know may be none of the run's."""
    try:
        tokenizer.encode(_PROBE, add_special_tokens=False)
    except Exception:  # noqa: BLE001 - the library raises no narrower one, and a fault of the file is none of them
        return


def _as_fault(error: BaseException, words: str) -> BaseException:
    """Return the ValueError of what the library raised, of which a panic is no Exception; others stay themselves."""
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return ValueError(f"{words} ({cut(' '.join(str(error).split()))})")
    return error


@contextmanager
def _without_panic_messages() -> Iterator[None]:
    """Keep the library's own report of a panic, of many lines, from the terminal."""
    # The library is Rust, which writes to the descriptor: another sys.stderr would keep nothing away.
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
