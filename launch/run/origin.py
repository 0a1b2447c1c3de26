"""Origin: where a fork began. RUN/fork.json is written with the folder, and a run that is no fork has none."""

import json
from dataclasses import asdict, dataclass

from data_shards.files import atomic, typed_json
from launch.lifecycle.run_folder import RunFolder


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a fork started from."""

    run: str = ""
    """The path of the run that the checkpoint is of; empty of a run that is no fork."""
    step: int = 0
    """The steps that were made before the fork."""
    skipped_steps: int = 0
    """The steps among them that changed no weight."""


def keep(origin: Origin, folder: RunFolder) -> None:
    """Write the origin of a fork into its folder."""
    atomic.write(folder.fork_path, json.dumps(asdict(origin)) + "\n")


def origin_of(folder: RunFolder) -> Origin:
    """Return the origin of a run."""
    return typed_json.read(Origin, folder.fork_path) if folder.fork_path.is_file() else Origin()
