"""A campaign runs the code that it was started from, in any folder."""

import os
import subprocess
import sys
from pathlib import Path

from launch.chaos.own_code import with_own_code

REPOSITORY = Path(__file__).parents[2]


def test_this_code_is_found_before_modules_of_the_working_directory(tmp_path: Path) -> None:
    for name in ("launch.py", "model.py"):
        (tmp_path / name).write_text("raise SystemExit('the module of the user was run')\n")
    program = "from importlib.util import find_spec; print(find_spec('launch').origin, find_spec('model').origin)"
    surroundings = with_own_code({**os.environ, "PYTHONPATH": str(tmp_path)})
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(REPOSITORY / name / "__init__.py") for name in ("launch", "model")]
