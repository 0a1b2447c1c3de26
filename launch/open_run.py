"""A run's folder is made, or is found to hold the same run."""

import os
import sys

from configs.run import RunConfig, difference, dump, load
from data_shards.display import masked
from launch.fence import Fence
from launch.folder import RunFolder
from launch.freeze import changed_files, freeze
from launch.loaders import check_evaluation, label_names
from launch.submission import refuse_if_queued


def open_run(config: RunConfig, folder: RunFolder) -> None:
    """Make the run's folder, or check that the run in it is this one; ValueError with what differs."""
    if folder.exists:
        changes = difference(load(folder.config_path), config)
        if changes:
            raise ValueError(
                "\n  ".join(
                    [
                        f"{folder.path}: holds a run with another configuration; go on with that one "
                        f"(perceiver train {folder.config_path} --run {folder.path}) or choose another --run folder:",
                        *changes,
                    ]
                )
            )
    label_names(config)
    if not folder.exists:
        check_evaluation(config)
    if not Fence.of(folder).is_supervised:
        refuse_if_queued(folder)
    folder.create()
    freeze(folder.code_folder)
    if not Fence.of(folder).is_supervised:
        # Otherwise whoever resumed the run did it: a stop may have come while the ranks started.
        folder.stop_path.unlink(missing_ok=True)
    if not folder.exists:
        # Written last: a folder with a config.yaml is a run.
        beside = folder.config_path.with_suffix(f".{os.getpid()}")
        content = dump(config)
        beside.write_text(content)
        if masked(content) != content:
            # A restart needs the password in the URL; the others who may look into the run do not.
            beside.chmod(0o600)
        beside.replace(folder.config_path)
    changed = changed_files(folder.code_folder)
    if changed:
        sys.stderr.write(
            f"note: the code that runs differs from the run's own copy in {', '.join(changed[:5])}"
            f"{' and more' if len(changed) > 5 else ''}; to run that copy: cd {folder.code_folder} && "
            f"python -m launch train {folder.config_path} --run {folder.path}\n"
        )
