"""A process that began with its imports done is a process like any other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm_start import WarmProcess, finished

pytestmark = pytest.mark.slow
TOLD = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ.get('WORD'), sys.path[0], os.getpid())"


def test_it_has_words_environment_folder_and_pipes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    for words in (["-c", TOLD], ["-m", "told"], [str(tmp_path / "told.py")]):
        done = finished([sys.executable, *words, "a", "b"], cwd=tmp_path, env={"WORD": "said"})
        pid = done.stdout.split()[-1]
        assert done.stdout == f"{tmp_path} ['a', 'b'] said {tmp_path} {pid}\n"
        assert (done.returncode, done.stderr) == (0, "")
        assert int(pid) != os.getpid()


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("raise SystemExit(85)", 85, ""),
        ("import sys; sys.exit('a sentence')", 1, "a sentence\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ],
)
def test_its_status_and_words_are_those_that_python_ends_with(code: str, status: int, told: str) -> None:
    done = finished([sys.executable, "-c", code])
    assert done.returncode == status
    assert done.stderr.endswith(told)


def test_it_can_be_killed_waited_for_and_written_to() -> None:
    echo = "import sys; print(sys.stdin.readline(), end='', flush=True); sys.stdin.read()"
    with WarmProcess([sys.executable, "-c", echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("a line\n")
        process.stdin.flush()
        assert process.stdout.readline() == "a line\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        assert process.poll() is None
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
