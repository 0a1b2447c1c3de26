"""A run that a program of one's own trains: by the same composition root as the command."""

from collections.abc import Sequence
from pathlib import Path

from configs.plugins import trust
from configs.run import load
from launch.run import composition


def train(
    config: Path | str,
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    take_over: bool = False,
    trust_code: bool = False,
) -> int:
    """Train the run in a folder, or resume it, as `perceiver train` in this process, or on all ranks under torchrun.

    Returns 0 at the run's end, and 85 where it was stopped before and the same call resumes it. Raises ValueError for
    bad input. With `trust_code` the plug-ins beside the configuration are executed, as where it is the run's own.
    """
    config, run = Path(config), Path(run)
    # As of the command: whoever resumes a run by its own configuration means its code, too.
    if trust_code or config.resolve().parent == run.resolve():
        trust(config.parent)
    return composition.main(load(config, overrides), run, take_over=take_over)
