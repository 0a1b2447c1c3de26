"""Whether a run has ended: it made all its steps, or its evaluations ended it early."""

from launch.lifecycle.run_folder import RunFolder
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import name_of


def has_ended(folder: RunFolder, checkpoint: int, *, steps: int, patience: int) -> bool:
    """Return whether nothing is left to do after the checkpoint of that step."""
    return checkpoint >= steps or has_stopped_early(folder, checkpoint, patience=patience)


def has_stopped_early(folder: RunFolder, checkpoint: int, *, patience: int) -> bool:
    """Return whether the evaluations up to the checkpoint of that step have ended the run."""
    if not patience:
        return False
    try:
        manifest = read_manifest(folder.checkpoints_folder / name_of(checkpoint))
    # Of a damaged one nothing is known; a resume passes over it.
    except ValueError:
        return False
    # By the checkpoint and not by metrics.jsonl: lines of steps after it are of an attempt that was thrown away.
    return manifest.state.improvement.since_best >= patience
