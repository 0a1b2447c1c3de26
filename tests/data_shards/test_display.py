"""What comes from outside is shown without control characters and without secrets."""

import time

import pytest

from data_shards.files.display import masked, printable, printable_lines


@pytest.mark.parametrize(
    "text", ["plain", "[/b] $\\bad{$ <b>&amp;", "\u00e9\u3000\u00a0\u202f \U0001f468\u200d\U0001f469", "C:\\new"]
)
def test_what_can_be_shown_stays_as_it_is(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


def test_control_characters_are_told_by_their_numbers() -> None:
    assert printable("a\x1b[2Jb\r\nc\x00\x9b\x7f") == r"a\x1b[2Jb\r\nc\x00\x9b\x7f"
    assert printable("\u202eexe.txt\u2028\u2066\udcff") == r"\u202eexe.txt\u2028\u2066\udcff"
    assert printable_lines("one\n  two\x1b]0;title\x07") == "one\n  two\\x1b]0;title\\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:word@host/a", "https://***@host/a"),
        ("https://user:w@rd@host:8080/a", "https://***@host:8080/a"),
        ("https://user:wo/rd@host/a", "https://***@host/a"),
        ("https://user:wo'rd@host/a", "https://***@host/a"),
        ("s3://KEY:SECRET@bucket/a", "s3://***@bucket/a"),
        ("https://token@host", "https://***@host"),
        ("data.shards = 'https://h/p?token=abc&x=1': not there", "data.shards = 'https://h/p?***': not there"),
        ("(https://h/p?sig=a%2Fb) and https://u:p@h/q#secret.", "(https://h/p?***) and https://***@h/q#***."),
        ("https://host:8080/data@v1/000.tar", "https://host:8080/data@v1/000.tar"),
        ("https://host/data/000.tar: HTTP 403", "https://host/data/000.tar: HTTP 403"),
        ("mail a@b.c, key=value?", "mail a@b.c, key=value?"),
    ],
)
def test_the_secrets_of_a_url_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize("piece", ["://", "a", "://a:b", "https://h?.", "@"])
def test_masking_takes_no_longer_for_hostile_text(piece: str) -> None:
    started = time.process_time()
    masked(piece * 10_000)
    assert time.process_time() - started < 1
