"""A rank opens no file at its start of what only the first rank, a remote folder, a submission or a picture needs."""

import subprocess
import sys

import pytest

OTHERS = ("aiohttp", "boto3", "botocore", "fsspec", "matplotlib", "rich", "submitit", "tensorboard", "typer")
SCRIPT = f"""
import sys
import launch.supervise.rank, launch.run.composition
print([name for name in {OTHERS!r} if name in sys.modules])
"""


@pytest.mark.slow
def test_a_rank_imports_nothing_that_others_need() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=280)
    assert answer.stdout == "[]\n"
