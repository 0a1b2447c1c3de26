"""The commands `perceiver data build NAME` of the published layouts: one for each object of sources/catalogue.py."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Annotated, Any

import typer

from data_shards.sources.catalogue import LAYOUTS
from data_shards.sources.layouts.layout import Layout
from launch.cli.build import Folder, MaxBad, Out, PerShard, Seed, TestShare, build_shards, options_of
from launch.cli.console import AsJson, Jobs

PANEL = "Data sets in their published layout"


def add_commands(app: typer.Typer) -> None:
    """Add the command of each layout."""
    for layout in LAYOUTS:
        app.command(layout.name, rich_help_panel=PANEL)(_command(layout))


def _command(layout: type[Layout]) -> Callable[..., None]:
    """Return the command of a layout: the options of every build, and one for each field of the layout."""

    def build(
        folder: Folder,
        out: Out,
        test_share: TestShare = 0.0,
        max_bad: MaxBad = 0,
        samples_per_shard: PerShard = 1_000,
        seed: Seed = 0,
        jobs: Jobs = 2,
        as_json: AsJson = False,
        **own: Any,  # noqa: ANN401 - of the fields' types
    ) -> None:
        # Typer has parsed and bounded each option by the metadata of its field.
        source = layout(**own)
        options = options_of(seed, samples_per_shard, max_bad, jobs, test_share)
        build_shards(layout.name, [folder], out, as_json, options, lambda given: source.build(folder, out, **given))

    # typer reads a signature: of `own` it would not know which options there are.
    common = [each for each in inspect.signature(build).parameters.values() if each.kind is not each.VAR_KEYWORD]
    signature = inspect.Signature([*common, *_own_options(layout)])
    build.__signature__ = signature  # type: ignore[attr-defined]
    build.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    build.__doc__ = layout.__doc__
    return build


def _own_options(layout: type[Layout]) -> Iterator[inspect.Parameter]:
    for each in fields(layout):  # type: ignore[arg-type]  # every layout is a dataclass
        yield inspect.Parameter(
            each.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=each.default,
            annotation=Annotated[each.type, typer.Option(**each.metadata)],
        )
