"""A process that began with its imports done is a process like any other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm_start import Server, Warm, WarmProcess, finished

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


FAMILY = """
import os, subprocess, sys
pipe, told = os.pipe()
code = f"import os, sys; os.write({told}, b'said'); print(os.getppid(), 'torch' in sys.modules); sys.exit(3)"
words = [sys.executable, "-u", "-c", code]
born = subprocess.run(words, pass_fds=[told], stdout=subprocess.PIPE, text=True, env=os.environ | {"WORD": "other"})
print(born.returncode, born.stdout.split() == [str(os.getpid()), "True"], os.read(pipe, 9))
assert subprocess.Popen(["sh", "-c", "exit 4"]).wait() == 4
slow = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
slow.kill()
print(slow.wait(), flush=True)
sys.exit(subprocess.run([sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run("
    "[sys.executable, '-c', 'import sys; sys.exit(5)']).returncode)"]).returncode)
"""


def test_its_children_begin_warm_and_are_its_own() -> None:
    done = finished([sys.executable, "-c", FAMILY], warm_children=True)
    assert (done.returncode, done.stderr) == (5, "")
    assert done.stdout == "3 True b'said'\n-9\n"


def test_where_no_python_of_ours_starts_a_warm_process_is_as_any_other() -> None:
    with Warm(["sh", "-c", "echo said; exit 3"], stdout=subprocess.PIPE) as process:
        assert process.communicate() == (b"said\n", None)
    assert process.returncode == 3


def test_a_start_that_was_given_up_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(_: Server) -> None:
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(Server, "_listen", give_up)
        with pytest.raises(TimeoutError):
            finished([sys.executable, "-c", "raise SystemExit(3)"])
    assert finished([sys.executable, "-c", "raise SystemExit(85)"]).returncode == 85
