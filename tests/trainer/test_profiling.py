"""The profiler records the steps of its window and no others."""

import json
from pathlib import Path

import pytest
import torch

from trainer.config import ProfileConfig
from trainer.distributed.world import World
from trainer.health.profiling import ProfileWindow


def steps_in(trace: Path) -> list[str]:
    events = json.loads(trace.read_text())["traceEvents"]
    return sorted({str(event["name"]) for event in events if str(event.get("name")).startswith("step ")})


@pytest.mark.parametrize(
    ("first", "num", "resumed", "recorded"),
    [(2, 2, 0, ["step 2", "step 3"]), (1, 1, 0, ["step 1"]), (3, 1, 2, ["step 3"]), (2, 3, 2, None), (0, 3, 0, None)],
)
def test_the_steps_of_the_window_are_recorded(
    tmp_path: Path, first: int, num: int, resumed: int, recorded: list[str] | None
) -> None:
    folder = tmp_path / "new" / "profile"
    window = ProfileWindow(ProfileConfig(first, num), folder, World(1, 2, 1, torch.device("cpu")))
    window.between(resumed)
    for step in range(resumed + 1, 7):
        with torch.profiler.record_function(f"step {step}"):
            torch.ones(2).sum()
        window.between(step)
    traces = sorted(tmp_path.rglob("*.json"))
    # A run that was resumed inside its window has none.
    assert [path.name for path in traces] == ([] if recorded is None else ["trace_rank_1.json"])
    assert [steps_in(path) for path in traces] == ([] if recorded is None else [recorded])


def test_without_a_folder_nothing_is_recorded() -> None:
    window = ProfileWindow(ProfileConfig(1, 1), None, World(0, 1, 0, torch.device("cpu")))
    for step in range(3):
        window.between(step)
