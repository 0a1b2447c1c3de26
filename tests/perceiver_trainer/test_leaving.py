"""A command that has loaded PyTorch leaves with its status, whatever the threads of its libraries still hold."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys, types
from perceiver_trainer.__main__ import main
if {loaded}:
    sys.modules["torch"] = types.ModuleType("torch")
atexit.register(print, "shut down")
sys.argv = ["perceiver", *{words}]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["train", "none.yaml", "--run", "run", "--x"], 2)])
def test_a_command_with_pytorch_leaves_without_the_shutdown_of_the_interpreter(words: list[str], status: int) -> None:
    for loaded in (True, False):
        script = SCRIPT.format(loaded=loaded, words=words)
        left = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=280)
        assert left.returncode == status
        assert ("shut down" in left.stdout) == (not loaded)
        assert "Usage: perceiver" in left.stdout + left.stderr
