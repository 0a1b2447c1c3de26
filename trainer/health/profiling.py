"""ProfileWindow: writes a torch.profiler trace of a window of steps and, on a GPU, the memory history."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from trainer.config import ProfileConfig
from trainer.distributed.world import World


class ProfileWindow:
    """Records the steps that the configuration names, on every rank; without them it does nothing."""

    def __init__(self, config: ProfileConfig, folder: Path | None, world: World) -> None:
        self._config = config
        self._folder = folder
        self._world = world
        self._profile: profile | None = None

    def acts_after(self, steps_done: int) -> bool:
        """Return whether `between` does something there, for which no step may be under way."""
        first, last = self._config.first_step - 1, self._config.first_step + self._config.num_steps - 1
        return self._folder is not None and self._config.first_step > 0 and steps_done in (first, last)

    def between(self, steps_done: int) -> None:
        """Start before the first step of the window; stop and write after its last."""
        if self._folder is None or self._config.first_step == 0:
            return
        if steps_done == self._config.first_step + self._config.num_steps - 1:
            self._stop(self._folder)
        if steps_done == self._config.first_step - 1:
            self._start()

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._world.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history()
        self._profile = profile(activities=activities)
        self._profile.start()

    def _stop(self, folder: Path) -> None:
        if self._profile is None:
            return  # the run was resumed inside the window
        self._profile.stop()
        folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(folder / f"trace_rank_{self._world.rank}.json"))
        if self._world.device.type == "cuda":
            snapshot = str(folder / f"memory_rank_{self._world.rank}.pickle")
            # A name of torch's own use, but the only way to this history.
            torch.cuda.memory._dump_snapshot(snapshot)  # type: ignore[no-untyped-call]
            torch.cuda.memory._record_memory_history(enabled=None)
        self._profile = None
