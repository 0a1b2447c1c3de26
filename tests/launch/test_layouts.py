"""A layout is a command whose options are those of every build and the fields of the layout."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from data_shards.format.manifest import Manifest
from data_shards.sources.layouts.layout import Layout
from launch.cli import layouts

USUAL = {"seed": 0, "samples_per_shard": 1000, "max_bad": 0, "num_jobs": 2, "test_share": 0.0}
TOLD = {"seed": 5, "samples_per_shard": 1, "max_bad": 3, "num_jobs": 1, "test_share": 0.25}
FLAGS = ["--seed", "5", "--samples-per-shard", "1", "--max-bad", "3", "--jobs", "1", "--test-share", "0.25", "--json"]


@dataclass(frozen=True)
class Birds(Layout):
    """Pictures of birds, as their author hands them out."""

    name = "birds"
    calls: ClassVar[list[tuple[object, ...]]] = []
    num_wings: int = field(default=2, metadata={"min": 1, "help": "Number of wings."})

    def build(self, folder: Path, out: Path, **options: Any) -> Manifest:  # noqa: ANN401  # as a command gives them
        """Note what was asked for."""
        options["progress"](3, 7)
        options["tell"]("three are left")
        del options["progress"], options["tell"]
        self.calls.append((self.num_wings, folder, out, options))
        return Manifest({}, ("owl",))


class Fish(Birds):
    """Pictures of fish, as their author hands them out."""

    name = "fish"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(layouts, "LAYOUTS", (Birds, Fish))
    monkeypatch.setattr(Birds, "calls", [])
    made = typer.Typer(no_args_is_help=True, help="Build shards of them.")
    layouts.add_commands(made)
    return made


def test_each_layout_is_a_command_that_is_explained(app: typer.Typer, explained: Callable[[typer.Typer], None]) -> None:
    explained(app)
    told = CliRunner().invoke(app, ["--help"]).stdout
    assert told.index(layouts.PANEL) < told.index("birds")
    assert "Number of wings." in CliRunner().invoke(app, ["birds", "--help"]).stdout


def test_what_is_typed_is_what_is_built(app: typer.Typer) -> None:
    usual = CliRunner().invoke(app, ["birds", "in", "out"], catch_exceptions=False)
    asked = CliRunner().invoke(app, ["fish", "in", "out", "--num-wings", "1", *FLAGS], catch_exceptions=False)
    assert Birds.calls == [(2, Path("in"), Path("out"), USUAL), (1, Path("in"), Path("out"), TOLD)]
    assert usual.stdout.splitlines() == ["three are left", "out: 1 class: owl"]
    assert asked.stdout.startswith('{"folder": "out"')
    assert all("3/7" in result.stderr for result in (usual, asked))
    assert CliRunner().invoke(app, ["birds", "in", "out", "--num-wings", "0"]).exit_code == 2
    assert len(Birds.calls) == 2
