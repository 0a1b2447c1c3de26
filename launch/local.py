"""`perceiver train --procs N`: a run on this machine, without Slurm, under the same supervision."""

from pathlib import Path

from configs.run import RunConfig
from launch.folder import RunFolder
from launch.loaders import absolute
from launch.open_run import open_run
from launch.restarts import RestartConfig
from launch.supervise import supervise


def start(config: RunConfig, path: Path, num_processes: int) -> int:
    """Make or reopen the run, then train it under supervision; return the exit status."""
    config, folder = absolute(config), RunFolder(path.resolve())
    config.train.micro_batches_per_rank(num_processes)
    open_run(config, folder)
    return supervise(folder, num_processes, RestartConfig())
