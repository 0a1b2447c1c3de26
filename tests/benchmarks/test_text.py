"""The benchmark of texts: both models are asked for every byte once, and the command trains and compares them."""

import json
import subprocess
import sys
from math import log2
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import text
from launch.cli.main import app

WORDS = b"the latents read the bytes, and the bytes are read by the latents; "


@pytest.mark.parametrize(("length", "num_places", "num_latents"), [(10, 8, 4), (3, 8, 4), (12, 4, 4), (13, 6, 2)])
def test_each_token_is_answered_once_and_reads_what_is_before_it(
    length: int, num_places: int, num_latents: int
) -> None:
    found = list(text.windows(length, num_places, num_latents))
    assert [place for _, stop, first in found for place in range(first, stop)] == list(range(length))
    for start, stop, first in found:
        assert stop - start == min(stop, num_places)
        assert stop - first <= num_latents


@pytest.mark.parametrize("kneser_ney", [True, False])
@pytest.mark.parametrize("before", [b"the ", b"", b"xyzw"])
def test_the_probabilities_of_all_next_bytes_add_up_to_one(before: bytes, kneser_ney: bool) -> None:
    base = text.ngram_bits(WORDS, before, kneser_ney=kneser_ney)
    bits = [text.ngram_bits(WORDS, before + bytes([byte]), kneser_ney=kneser_ney) - base for byte in range(256)]
    assert sum(2**-each for each in bits) == pytest.approx(1.0)


def test_a_text_that_was_read_costs_less_than_another_and_an_unknown_byte_most() -> None:
    known, other = (text.ngram_bits(WORDS, each, kneser_ney=True) for each in (b"the latents", b"stnetal eht"))
    assert known < other
    assert text.ngram_bits(b"a" * 99, b"b", kneser_ney=False) > log2(99)


@pytest.mark.slow
def test_the_command_trains_a_network_and_compares_it_with_the_grams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "licences", lambda: (WORDS * 600, WORDS))
    monkeypatch.setattr(
        sys, "argv", ["text", str(tmp_path / "out"), "--steps", "1", "--json", str(tmp_path / "found.json")]
    )

    def run(words: list[str], **_: Any) -> None:  # noqa: ANN401
        # In this process: another one would load PyTorch once more.
        assert CliRunner().invoke(app, words[3:], catch_exceptions=False).exit_code == 0

    monkeypatch.setattr(subprocess, "run", run)
    text.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["train_bytes"], found["test_bytes"], found["steps"]) == (600 * len(WORDS), len(WORDS), 1)
    # The grams know the repeated sentence; a network after one step does not.
    assert found["5-gram, Kneser-Ney"] < 1 < found["perceiver_ar"] < 8
    assert f"perceiver_ar         {found['perceiver_ar']:.3f}" in capsys.readouterr().out
