"""A bar on standard error moves as far as it is told, and what never moved leaves none."""

import pytest

from launch.cli.console import progress_bar


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
