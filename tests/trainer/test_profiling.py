"""The profiler records the steps of its window and no others."""

import json
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity

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


@pytest.mark.parametrize(
    ("first", "num", "edges"),
    [(2, 3, [1, 4]), (1, 1, [0, 1]), (0, 3, []), (3, 1, [2, 3])],
)
def test_something_is_done_before_the_first_step_of_the_window_and_after_its_last(
    tmp_path: Path, first: int, num: int, edges: list[int]
) -> None:
    world = World(0, 1, 0, torch.device("cpu"))
    window = ProfileWindow(ProfileConfig(first, num), tmp_path, world)
    assert [step for step in range(8) if window.acts_after(step)] == edges
    without = ProfileWindow(ProfileConfig(first, num), None, world)
    assert not any(without.acts_after(step) for step in range(8))


def test_on_a_gpu_its_kernels_and_its_memory_are_recorded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    class Profile:
        def __init__(self, *, activities: list[object]) -> None:
            told.append(activities)

        def start(self) -> None:
            told.append("start")

        def stop(self) -> None:
            told.append("stop")

        def export_chrome_trace(self, path: str) -> None:
            told.append(Path(path).name)

    memory = "torch.cuda.memory."
    monkeypatch.setattr("trainer.health.profiling.profile", Profile)
    monkeypatch.setattr(f"{memory}_record_memory_history", lambda **options: told.append(options))
    monkeypatch.setattr(f"{memory}_dump_snapshot", lambda path: told.append(Path(path).name))
    window = ProfileWindow(ProfileConfig(2, 1), tmp_path, World(3, 4, 0, torch.device("cuda")))
    for step in range(4):
        window.between(step)
    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    files = ["trace_rank_3.json", "memory_rank_3.pickle"]
    assert told == [{}, both, "start", "stop", *files, {"enabled": None}]
    window.between(2)
    assert told[-1] == {"enabled": None}, "what has been written is not written again"
