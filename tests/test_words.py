"""What a person reads is in the field's standard terms: README, docs, help texts, docstrings, messages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from launch.cli.main import app

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "configs", "data_shards", "launch", "model", "perceiver_trainer", "trainer")
PRIVATE = {
    r"\bgo(es|ing)? on\b": "resumes, continues",
    r"\b(is|are|was|were) told\b": "is reported, receives",
    r"\b(latents|ranks|it|they|host|supervisor) looks?\b": "attends to, reads, checks",
    r"\bis looked at\b|\bare looked at\b": "is read, is checked",
    r"\bpass(ed|es) over\b": "skipped, skips",
    r"\b(made|built|drawn|written|train) anew\b": "again",
    r"\bdrawn? again\b": "reconstructed, reconstructs",
    r"\bother ones each time\b": "different ones each epoch",
    r"\bby hand of\b": "by",
    r"\bmend(s|ed)?\b": "correct, fix",
    r"\bcame to \d|\bearlier runs\b": "what is true now, with date and machine",
}
"""Phrases that this repository once had for itself, and what the field says."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield (where, text) of all that is held to plain words."""
    for page in sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")]):
        yield str(page.relative_to(REPOSITORY)), page.read_text()
    for package in PACKAGES:
        for module in sorted((REPOSITORY / package).rglob("*.py")):
            yield from written(str(module.relative_to(REPOSITORY)), module.read_text())
    yield from helps("perceiver", commands())


def commands() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def written(name: str, code: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a module: docstrings of it, its functions, classes and fields, and messages."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Constant(value=str(text)):
                yield f"{name}:{node.lineno}", text


def helps(name: str, group: TyperGroup) -> Iterator[tuple[str, str]]:
    yield f"{name} --help", group.help or ""
    for command in group.commands.values():
        own = f"{name} {command.name}"
        if isinstance(command, TyperGroup):
            yield from helps(own, command)
            continue
        options = [getattr(parameter, "help", None) or "" for parameter in command.params]
        yield f"{own} --help", "\n".join([command.help or "", *options])


def found(text: str) -> list[str]:
    """Return the private phrases of a text, each with what to say in its place."""
    # A phrase may be broken over two lines.
    flat = re.sub(r"\s+", " ", text)
    return [
        f"{hit[0]!r}: say {plain}"
        for phrase, plain in PRIVATE.items()
        for hit in re.finditer(phrase, flat, re.IGNORECASE)
    ]


def test_what_a_person_reads_has_no_private_words() -> None:
    wrong = [f"{where}: {sentence}" for where, text in texts() for sentence in found(text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "The run goes on where it was.",
        "What the metrics are told\nof it.",
        "Where the latents look.",
        "An epoch leaves out 30 samples, other ones each time.",
        "Earlier runs came to 0.54.",
    ],
)
def test_a_private_phrase_is_found(text: str) -> None:
    assert found(text)


def test_every_command_has_a_help_text() -> None:
    found_helps = dict(helps("perceiver", commands()))
    assert all(found_helps[f"perceiver {name} --help"] for name in ("train", "data build table", "plan", "status"))
