"""A program of one's own trains a run by the same way as the command, and runs nobody's code unasked."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs import plugins
from configs.run import load
from launch.from_python import train
from launch.lifecycle.exit_status import RUN_ME_AGAIN

Door = Callable[..., list[dict[str, Any]]]
REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "digits.yaml"
MAIN = "launch.run.composition.main"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run with a plug-in, as it is after its creation."""
    run = tmp_path / "run"
    (run / "code").mkdir(parents=True)
    shutil.copy(REPOSITORY / "examples" / "plugins" / "csv_sink.py", run / "csv_sink.py")
    (run / "config.yaml").write_text(f"{CONFIG.read_text()}\nplugins: [csv_sink.py]\n")
    before = set(plugins._trusted)
    yield run
    plugins._trusted.clear()
    plugins._trusted.update(before)
    plugins.use(())


def test_it_calls_the_composition_root_as_the_command_does(door: Door) -> None:
    calls = door(MAIN)
    assert train(str(CONFIG), "a run", ["seed=3"], take_over=True) == 0
    assert train(CONFIG, Path("a run")) == 0
    expected = {"path": Path("a run"), "as_json": False, "heartbeat": None}
    assert calls == [
        {**expected, "config": replace(load(CONFIG), seed=3), "take_over": True},
        {**expected, "config": load(CONFIG), "take_over": False},
    ]


def test_it_returns_the_status_that_asks_for_the_same_call_again(door: Door) -> None:
    door(MAIN, RUN_ME_AGAIN)
    assert train(CONFIG, "a run") == 85


def test_bad_input_raises(door: Door) -> None:
    door(MAIN)
    with pytest.raises(ValueError, match="sed"):
        train(CONFIG, "a run", ["sed=3"])


def test_the_code_of_another_run_is_executed_only_where_it_is_trusted(kept: Path, door: Door) -> None:
    calls = door(MAIN)
    with pytest.raises(ValueError, match="in Python trust_code=True"):
        train(kept / "config.yaml", "another")
    assert train(kept / "config.yaml", "another", trust_code=True) == 0
    assert calls[0]["config"].plugins == (str(kept / "csv_sink.py"),)


def test_a_run_is_resumed_by_its_own_configuration_with_its_code(kept: Path, door: Door) -> None:
    calls = door(MAIN)
    assert train(kept / "config.yaml", kept) == 0
    assert calls[0]["path"] == kept
