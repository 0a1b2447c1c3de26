"""A real Slurm on this machine: one controller, four nodes, munge; started in seconds, torn down by process id.

Two forms. `flat`: four slurmd on ports of this host, named by loopback addresses, which resolve everywhere.
`networked`: every node is a network and process namespace on a bridge of its own, so that a cable can be pulled and a
node powered off without the rest of the machine noticing. Measurements: shared/reference/slurm_lab.md.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import accounting
from ports import free_port

from launch.lifecycle.run_folder import RunFolder

NUM_NODES = 4
PATIENCE_SECONDS = 240
"""A machine that does other things too may take minutes for what takes seconds alone."""
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "unshare", "nsenter", "setpriv", "ip")


def missing(*programs: str) -> str:
    """Return one line that says what this machine lacks for a lab and these programs, or an empty string."""
    lacking = [name for name in (*PROGRAMS, *programs) if shutil.which(name) is None]
    if lacking:
        return f"no {', '.join(lacking)}; run tests/slurm/install.sh as root"
    return "" if os.geteuid() == 0 else "Slurm's daemons and network namespaces need root"


def steps_of(folder: RunFolder, rank: int = 0) -> list[dict[str, Any]]:
    """Return what a rank of the probe recorded, a dictionary a step."""
    path = folder.path / f"steps_of_rank_{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def perceiver(lab: "Lab", *words: str | Path) -> Any:  # noqa: ANN401  # an object, or a list of them
    """Return what a command of ours prints as JSON; it must succeed."""
    result = lab.perceiver(*words)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


class CommandError(AssertionError):
    """A Slurm command did not succeed: the controller is busy, or away, or does not know what was asked for."""


class Lab:
    """A running Slurm; a context manager."""

    def __init__(self, *, networked: bool = False, accounted: bool = False, control_parameters: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-lab-"))
        self.networked = networked
        self.nodes = [f"10.77.0.{11 + k}" if networked else f"127.0.0.{11 + k}" for k in range(NUM_NODES)]
        self.interface = "eth0" if networked else "lo"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._holders: dict[str, int] = {}
        self._accounting_ports = [free_port(), free_port()] if accounted else []
        self._write_configuration(control_parameters)

    def __enter__(self) -> Self:
        try:
            if self.networked:
                self._build_network()
            self._start_daemons()
            idle = ("sinfo", "--noheader", "--partition=main", "--states=idle", "--format=%D")
            self.wait_for(lambda: self.run(*idle).stdout.split() == [str(NUM_NODES)], "all nodes idle")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell on the head of this cluster has."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        return inherited | {"SLURM_CONF": str(self.folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def run(self, *words: str | Path, timeout: float = 60, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a user's command on the head."""
        command = [*self._inside("head"), *map(str, words)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout, cwd=cwd)

    def perceiver(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of ours on the head."""
        return self.run(sys.executable, "-m", "launch", *words, timeout=280)

    def start_perceiver(self, *words: str | Path) -> "subprocess.Popen[bytes]":
        """Start a command of ours on the head."""
        command = [*self._inside("head"), sys.executable, "-m", "launch", *map(str, words)]
        return subprocess.Popen(command, env=self.environment)

    def command(self, *words: str | Path) -> str:
        """Return what a Slurm command prints; it must succeed."""
        result = self.run(*words)
        if result.returncode:
            raise CommandError(f"{words}: {result.stderr}")
        return result.stdout

    def field(self, job_id: str, name: str) -> str:
        """Return one field of `scontrol show job`, such as JobState or Restarts."""
        words = self.command("scontrol", "show", "job", "--oneliner", job_id).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Return once the condition holds; fail with the controller's last lines if it does not in time."""
        deadline = time.monotonic() + timeout
        refusal = ""
        while True:
            try:
                if condition():
                    return
            except CommandError as error:
                refusal = str(error)
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {what}\n{refusal}\n{self._last_lines()}")
            time.sleep(0.2)

    def wait_for_state(self, job_id: str, *states: str) -> None:
        """Return once the job is in one of the states."""
        self.wait_for(lambda: self.field(job_id, "JobState") in states, f"job {job_id} in {' or '.join(states)}")

    def kill_slurmd(self, node: str) -> None:
        """Kill the daemon of a node; the ranks on it live on."""
        self._kill(f"slurmd {node}")

    def start_slurmd(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(f"slurmd {node}", [*self._inside(node), "slurmd", "-D", "-N", node])

    def stop_controller(self) -> None:
        """End the controller in good order, as an upgrade does; the daemons and the jobs live on."""
        self._kill("slurmctld", signal.SIGTERM)

    def start_controller(self) -> None:
        """Start the controller, which goes on from the state that it saved."""
        self._start("slurmctld", [*self._inside("head"), "slurmctld", "-D"])

    def cut(self, node: str) -> None:
        """Pull the node's cable; everything on it lives on."""
        self.command("ip", "link", "set", self._cable(node), "down")

    def heal(self, node: str) -> None:
        """Put the node's cable back."""
        self.command("ip", "link", "set", self._cable(node), "up")

    def power_off(self, node: str) -> None:
        """Kill the first process of the node's namespace, and with it all others."""
        os.kill(self._holders[node], signal.SIGKILL)
        self._kill(f"slurmd {node}")

    def stop(self) -> None:
        """End all that was started and remove the folder."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            # Steps outlive the daemons, so that they have to be gone first.
            self.command("scancel", "--user=root", "--state=PENDING")
            self.command("scancel", "--user=root", "--signal=KILL", "--full")
            self.wait_for(lambda: not self.command("squeue", "--noheader", "--states=RUNNING,COMPLETING"), "end", 10)
        for name in reversed(list(self._processes)):
            self._kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_configuration(self, control_parameters: str) -> None:
        """Write what the daemons read; every node has two GPUs, as far as Slurm can tell."""
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir(mode=0o700)
        self.folder.chmod(0o711)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        ports = [7001] * (NUM_NODES + 1) if self.networked else [free_port() for _ in range(NUM_NODES + 1)]
        lines = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr={name if self.networked else '127.0.0.1'} "
            f"Port={port} CPUs=4 RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
            for name, port in zip(self.nodes, ports, strict=False)
        ]
        text = (Path(__file__).parent / "slurm.conf.in").read_text()
        values = {
            "hostname": socket.gethostname(),
            "head": "10.77.0.1" if self.networked else "127.0.0.1",
            "control_port": ports[-1] + self.networked,
            "folder": self.folder,
            "first_job_id": 1 + os.getpid() % 10_000 * 1000,
            "control_parameters": control_parameters and f"SlurmctldParameters={control_parameters}",
            "accounting": accounting.configure(self.folder, *self._accounting_ports) if self._accounting_ports else "",
            "nodes": "\n".join(lines),
        }
        (self.folder / "slurm.conf").write_text(text.format(**values))
        # Any two character devices will do.
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")

    def _build_network(self) -> None:
        """A bridge in the head's namespace, and a cable from it to every node."""
        self._hold("head")
        head = [*self._inside("head"), "ip", "link"]
        _check([*head, "add", "bridge", "type", "bridge"])
        _check([*head, "set", "bridge", "up"])
        _check([*self._inside("head"), "ip", "address", "add", "10.77.0.1/24", "dev", "bridge"])
        for node in self.nodes:
            holder, cable = self._hold(node), self._cable(node)
            inside = [*self._inside(node), "ip"]
            _check([*head, "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder)])
            _check([*head, "set", cable, "master", "bridge", "up"])
            _check([*inside, "address", "add", f"{node}/24", "dev", "eth0"])
            _check([*inside, "link", "set", "eth0", "up"])

    def _hold(self, name: str) -> int:
        """Start the first process of a new namespace and return its id."""
        # A node ends with its first process: that is what powering it off does.
        words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"]
        parent = self._start(f"holder {name}", words)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        self.wait_for(lambda: children.read_text().split(), f"namespace of {name}")
        holder = int(children.read_text().split()[0])
        self.wait_for(lambda: Path(f"/proc/{holder}/comm").read_text().strip() == "sleep", f"namespace of {name}")
        self._holders[name] = holder
        _check([*self._inside(name), "ip", "link", "set", "lo", "up"])
        return holder

    def _start_daemons(self) -> None:
        munge = ["munged", "--foreground", "--force", f"--socket={self.folder}/munge.sock", "--num-threads=2"]
        files = [f"--{name}-file={self.folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", [*munge, *files])
        self.wait_for((self.folder / "munge.sock").exists, "munged's socket")
        if self._accounting_ports:
            self._start_accounting(*self._accounting_ports)
        self.start_controller()
        for node in self.nodes:
            self.start_slurmd(node)

    def _start_accounting(self, port: int, database_port: int) -> None:
        """Start the database; the controller does not start before its cluster is known there."""
        self._start("mariadbd", accounting.database(self.folder, database_port))
        self.wait_for(lambda: _listens(database_port), "mariadbd's port")
        self._start("slurmdbd", ["slurmdbd", "-D"])
        self.wait_for(lambda: _listens(port), "slurmdbd's port")
        self.wait_for(lambda: self.command("sacctmgr", "--immediate", "add", "cluster", "lab"), "slurmdbd")

    def _inside(self, name: str) -> list[str]:
        if name not in self._holders:
            return []
        # On a node: its own PID namespace too, else powering it off would leave its processes.
        namespaces = ["--net"] if name == "head" else ["--net", "--pid", "--mount"]
        return ["nsenter", "--target", str(self._holders[name]), *namespaces, "--"]

    def _cable(self, node: str) -> str:
        return f"cable{self.nodes.index(node)}"

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log" / f"{name.replace(' ', '-')}.out").open("ab") as log:
            # Whatever becomes of the tests, the daemons and namespaces end with them.
            words = ["setpriv", "--pdeathsig", "KILL", *command]
            process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self._processes[name] = process
        return process

    def _kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                # nsenter --pid forks: the daemon is in its group.
                os.killpg(process.pid, number)
            process.wait()

    def _last_lines(self) -> str:
        log = self.folder / "log" / "slurmctld.log"
        return "\n".join(log.read_text().splitlines()[-20:]) if log.exists() else "slurmctld has not started"


def _check(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
