"""The surroundings in which a campaign starts the command: this very code, whatever lies in the working directory."""

import os
from collections.abc import Mapping

from launch.run.frozen_code import installed_folder


def with_own_code(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which `python -m launch` finds this code before modules of the user's own."""
    # A folder of the user's may have modules called model or trainer, which `python -m` would find first.
    folders = [str(installed_folder()), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(folders)}
