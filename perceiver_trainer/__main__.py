"""The command `perceiver`, also as `python -m perceiver_trainer`, a name that nothing shadows."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from perceiver_trainer import shadowing


def main() -> None:
    """Run the command; status 2 where other packages stand in the way of ours."""
    sentence = shadowing.problem(is_command=True)
    if sentence:
        sys.stderr.write(f"perceiver: {sentence}\n")
        sys.exit(2)
    # Only now: these packages may be shadowed.
    from launch.cli.main import main as command

    try:
        command()
    except SystemExit as leaving:
        _leave(leaving)


def _leave(leaving: SystemExit) -> NoReturn:
    if "torch" not in sys.modules or not isinstance(leaving.code, int | None):
        raise leaving
    with suppress(OSError):  # whoever read it has gone
        sys.stdout.flush()
        sys.stderr.flush()
    # Not through the interpreter's shutdown: gloo's threads may still hold the tensors of the last exchanges, whose
    # release then aborts the process, and its status, by which a launcher decides on a restart, would be lost.
    os._exit(leaving.code or 0)


if __name__ == "__main__":
    main()
