"""A bar on standard error moves as far as it is told, and a report on shards has all that they hold."""

from pathlib import Path

import pytest

from data_shards.format.manifest import Manifest
from launch.cli.console import progress_bar, report_shards


def test_a_bar_says_how_far_it_is_beside_its_name_and_leaves_standard_output_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar("cats") as progress:
        progress(2, 4)
        progress(3, 4)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("cats ")
    assert "3/4" in told.err


def test_a_bar_that_never_moved_is_not_left_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("cats"):
        pass
    assert "cats" not in capsys.readouterr().err
    with pytest.raises(ValueError, match="is there already"), progress_bar("cats"):
        raise ValueError("is there already")
    assert "cats" not in capsys.readouterr().err


def test_a_name_in_brackets_is_no_style(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("[red]cats[/red]") as progress:
        progress(3, 4)
    assert capsys.readouterr().err.startswith("[red]cats[/red] ")


@pytest.mark.parametrize(
    ("manifest", "lines"),
    [
        (Manifest({}, ()), []),
        (
            Manifest({}, ("a",), named_labels={"size": ("small", "large"), "none": ()}),
            ["in: 1 class: a", "in: label size: 2 classes: small, large"],
        ),
    ],
)
def test_classes_are_told_of_every_label_that_has_some(
    manifest: Manifest, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report_shards(Path("in"), manifest, as_json=False)
    assert capsys.readouterr().out.splitlines() == lines
