"""A command that ends by itself, on the nodes of a cluster: eval, predict and embed with --cluster.

perceiver eval RUN --cluster plain     writes FOLDER/command.json, submits, prints the job and returns
every rank of the job                  `python -m launch.cli.on_cluster FOLDER`: the same words, without --cluster
"""

import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data_shards.files import atomic
from launch.lifecycle import cluster
from launch.lifecycle.run_folder import as_typed
from launch.run.frozen_code import installed_folder
from launch.slurm import door
from launch.supervise.rank import torch_variables

OPTION = "--cluster"


def submit(profile_name: str, words: Sequence[str], folder: Path) -> int:
    """Submit the command that was typed as one job, which writes its output into a new folder; return the status."""
    profile = cluster.load(profile_name)
    if profile.scheduler != "slurm":
        raise ValueError(f"{OPTION} {profile_name}: is this machine; leave it out, or start the command by torchrun")
    folder.mkdir(parents=True, exist_ok=True)
    # A folder of its own: the same command may be submitted twice.
    own = Path(tempfile.mkdtemp(prefix=f"{words[0]}-", dir=folder)).resolve()
    content = {"words": without(words), "folder": str(Path.cwd())}
    atomic.write(own / "command.json", json.dumps(content, indent=1) + "\n")
    try:
        job_id = door.submit_module("launch.cli.on_cluster", own, profile, code=installed_folder(), job_name=own.name)
    except ValueError:
        # Slurm took no job, so nothing will ever be written there.
        atomic.remove(own)
        raise
    sys.stdout.write(f"submitted job {job_id}\noutput: {shlex.quote(as_typed(own))}/{job_id}_0_log.out\n")
    return 0


def without(words: Sequence[str]) -> list[str]:
    """Return the words of a command without the option that names a cluster."""
    kept: list[str] = []
    is_value = False
    for word in words:
        if not is_value and word != OPTION and not word.startswith(f"{OPTION}="):
            kept.append(word)
        # `--cluster --cluster` is the option with a strange value, not the option twice.
        is_value = word == OPTION and not is_value
    return kept


def main(folder: Path) -> None:
    """Run the command on this rank, in the folder in which it was typed."""
    # The warning before a time limit or a preemption: there is nothing to save, and some time left to finish in.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    # Before torch is imported, which reads them.
    os.environ.update(torch_variables(os.environ))
    content = json.loads((folder / "command.json").read_text())
    os.chdir(content["folder"])
    sys.argv = ["perceiver", *content["words"]]
    from launch.cli.main import main as command

    command()


if __name__ == "__main__":
    status: object = 0
    try:
        main(Path(sys.argv[1]))
    except SystemExit as leaving:
        status = leaving.code
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's shutdown: threads of gloo may still hold tensors, and abort there.
    os._exit(status if isinstance(status, int) else 1 if status else 0)
