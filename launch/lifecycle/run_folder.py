"""RunFolder: every path of a run, by name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_shards.files import atomic
from data_shards.files.display import printable

_SPACE_BYTES = 1 << 20

UNPUBLISHED = ".perceiver-"
"""The prefix of the name of a folder in which a run is being created."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; nothing else of the product builds a path inside it."""

    path: Path

    @property
    def config_path(self) -> Path:
        """The resolved configuration; written once, when the run is made."""
        return self.path / "config.yaml"

    @property
    def code_folder(self) -> Path:
        """The copy of the code that the run started with."""
        return self.path / "code"

    @property
    def plugins_record_path(self) -> Path:
        """The hash of each plug-in with which the run made its first step."""
        return self.path / "plugins.json"

    @property
    def checkpoints_folder(self) -> Path:
        """One folder a checkpoint, step_00000100 and so on."""
        return self.path / "checkpoints"

    @property
    def initial_weights_path(self) -> Path:
        """The weights that the run took at its step 0, where it did not draw them."""
        return self.path / "initial_weights.safetensors"

    @property
    def initial_weights_record_path(self) -> Path:
        """The record of the initial weights: their source, their hash, and what was resized or not used."""
        return self.path / "initial_weights.json"

    @property
    def fork_path(self) -> Path:
        """The run and the step that a fork started from; a run that is no fork has none."""
        return self.path / "fork.json"

    @property
    def class_names_path(self) -> Path:
        """The class names of what the network predicts, by label; the shards need not be there to name an answer."""
        return self.path / "class_names.json"

    @property
    def metrics_path(self) -> Path:
        """One JSON line a logged step or evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def quarantine_path(self) -> Path:
        """Samples that were found bad: one JSON object a line."""
        return self.path / "quarantine.jsonl"

    @property
    def evaluation_path(self) -> Path:
        """The newest result of `perceiver eval`."""
        return self.path / "evaluation.json"

    def of_evaluation(self, name: str) -> "RunFolder":
        """Return where the results on other data than the run's go."""
        return RunFolder(self.path / "evaluations" / name)

    @property
    def latents_path(self) -> Path:
        """The newest result of `perceiver eval --latents all`."""
        return self.path / "evaluation_latents.json"

    @property
    def tensorboard_folder(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def logs_folder(self) -> Path:
        """Log files, one a rank."""
        return self.path / "logs"

    def log_path(self, attempt: int, rank: int) -> Path:
        """Return where the output of a rank in an attempt goes."""
        return self.logs_folder / f"attempt_{attempt:04d}_rank_{rank}.log"

    @property
    def pictures_folder(self) -> Path:
        """The loss curve and test samples with their predictions."""
        return self.path / "pictures"

    @property
    def attempts_folder(self) -> Path:
        """One folder a start, 0001 and so on: where, how long, how far, and why it ended."""
        return self.path / "attempts"

    @property
    def cluster_path(self) -> Path:
        """The cluster profile of the newest submission."""
        return self.path / "cluster.yaml"

    @property
    def submission_path(self) -> Path:
        """The newest submission: its job id, and what it asked for."""
        return self.path / "submission.json"

    @property
    def stop_path(self) -> Path:
        """The mark of `perceiver stop`: while it exists, the run is not started again by itself."""
        return self.path / "stop"

    @property
    def lock_path(self) -> Path:
        """Held by the processes that write into the run."""
        return self.path / "lock"

    @property
    def unfinished_path(self) -> Path:
        """The mark of a run that is being made in a folder that was there before it: all that is in it is ours."""
        return self.path / ".unfinished"

    @property
    def watch_folder(self) -> Path:
        """Heartbeats of the ranks, and the stacks of all of them after a hang."""
        return self.path / "watch"

    @property
    def profile_folder(self) -> Path:
        """Traces of the profiler window."""
        return self.path / "profile"

    @property
    def exists(self) -> bool:
        """True where a run was made here, and not only begun to be made."""
        # A start that was killed may have left its hidden folder, with a config.yaml in it.
        return self.config_path.is_file() and not self.path.name.startswith(UNPUBLISHED)

    def refuse_foreign(self) -> None:
        """Raise ValueError if the folder holds something else than a run."""
        if self.exists or self.unfinished_path.exists() or not self.path.is_dir():
            return
        # Of a disk that was mounted for the run.
        if any(entry.name != "lost+found" for entry in self.path.iterdir()):
            raise ValueError(f"{self.path}: is not empty and has no config.yaml of a run; choose another --run folder")

    def create(self) -> None:
        """Make the folder; ValueError if it holds something else or cannot be written."""
        self.refuse_foreign()
        try:
            self.make()
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --run folder or correct its "
                "permissions"
            ) from error

    def make(self) -> None:
        """Make the folder and its parts; OSError if it cannot be written."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.checkpoints_folder, self.tensorboard_folder, self.logs_folder, self.pictures_folder):
            folder.mkdir(exist_ok=True)
        # By writing: permissions say nothing of a disk that is mounted read-only.
        probe = self.path / f".writable.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()

    def refuse_links_to_nothing(self) -> None:
        """Raise ValueError where a part of the run is a link to what is not there, such as a disk that is not mounted.

        Without its checkpoints the run would begin anew.
        """
        for entry in self.path.iterdir():
            # Emacs leaves a link to nothing beside a file that it has open: .#config.yaml.
            if entry.is_symlink() and not entry.exists() and not entry.name.startswith("."):
                raise ValueError(
                    f"{entry}: is a link to {entry.readlink()}, which is not there; bring that back or remove the link"
                )

    def check_space(self) -> None:
        """Raise ValueError where the disk takes no more: a start keeps records before it makes its first step."""
        probe = self.path / f".space.{os.getpid()}"
        try:
            try:
                # With bytes in it: an empty file can be made on a full disk.
                atomic.write(probe, bytes(_SPACE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(
                f"{self.path}: no file can be written ({error.strerror}); free space on its disk or correct its "
                "permissions, then the same command resumes the run from its newest checkpoint"
            ) from error


def existing(folder: RunFolder) -> RunFolder:
    """Return the folder; ValueError where no run was made in it, or a part of it is missing behind a link."""
    if not folder.exists:
        raise ValueError(f"{folder.path}: holds no run (no config.yaml); `perceiver train CONFIG --run RUN` makes one")
    folder.refuse_links_to_nothing()
    return folder


def refuse_unwritable(folder: Path, purpose: str, remedy: str) -> None:
    """Raise ValueError where a folder cannot be written, or made where it is not there; `purpose` says what for."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ValueError(f"{there}: is no folder, and {purpose}; {remedy}")
    # A file in a folder takes both rights: to write the folder and to enter it.
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there}: cannot be written, and {purpose}; correct its permissions, or {remedy}")


@contextmanager
def making(path: Path, remedy: str) -> Iterator[None]:
    """Raise ValueError where the block cannot make the folders for `path`, as in /proc, whatever its permissions."""
    try:
        yield
    except OSError as error:
        # What the owner of a disk can correct has a sentence with its remedy.
        if atomic.of_disk(error):
            raise
        raise ValueError(f"{path}: cannot be made ({error.strerror}); {remedy}") from error


def runs_at(path: Path) -> list[RunFolder]:
    """Return the run in a folder, or those of a sweep that the folder holds; ValueError where there is none."""
    folder = RunFolder(path.resolve())
    # A run is not searched for others: its parts may hold copies of a config.yaml.
    below = sorted(folder.path.glob("*/")) if folder.path.is_dir() and not folder.exists else []
    return [run for run in map(RunFolder, below) if run.exists] or [existing(folder)]


def as_typed(path: Path) -> str:
    """Return a path as it is typed here: relative where it lies below the working directory; a line of its own."""
    relative = os.path.relpath(path)
    return printable(str(path) if relative.startswith(os.pardir) else relative)
