"""`perceiver status`: how far a run is, from its folder alone."""

import json
import sys
import time
from pathlib import Path

from configs.run import load
from launch.evaluate import existing
from launch.folder import RunFolder
from trainer import checkpoint_folder


def main(path: Path, *, as_json: bool = False) -> int:
    """Print the state of a run; return the exit status."""
    state = read(RunFolder(path.resolve()))
    if as_json:
        sys.stdout.write(json.dumps(state) + "\n")
    else:
        for name, value in state.items():
            sys.stdout.write(f"{name.replace('_', ' '):<20} {value if value is not None else '-'}\n")
    return 0


def read(folder: RunFolder) -> dict[str, str | int | float | None]:
    """Return how far the run is: of steps, loss and speed the newest line of its metrics says."""
    config = load(existing(folder).config_path)
    newest = _newest_training_line(folder.metrics_path)
    step = int(newest.get("step", 0))
    seconds_per_step = float(newest.get("step_seconds", 0.0))
    checkpoints = checkpoint_folder.complete(folder.checkpoints_folder)
    return {
        "run": str(folder.path),
        "state": "finished" if step >= config.train.steps else "unfinished",
        "step": step,
        "steps": config.train.steps,
        "loss": newest.get("loss"),
        "samples_per_second": newest.get("samples_per_second"),
        "eta_seconds": round((config.train.steps - step) * seconds_per_step) if seconds_per_step else None,
        "newest_checkpoint": checkpoints[-1].name if checkpoints else None,
        "seconds_since_log": round(time.time() - folder.metrics_path.stat().st_mtime) if newest else None,
    }


def _newest_training_line(metrics_path: Path) -> dict[str, float]:
    if not metrics_path.exists():
        return {}
    for line in reversed(metrics_path.read_text().splitlines()):
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line may be half written
        if fields.get("kind") == "train":
            return dict(fields)
    return {}
