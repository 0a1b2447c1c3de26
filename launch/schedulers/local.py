"""This machine as a scheduler: a job is a supervisor in the background that outlives the submitting shell."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence

from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.lifecycle.scheduler import UNKNOWN, Job
from trainer.health.process import start_ticks

_ID = re.compile(r"(.+)-(\d{1,9})-(\d{1,18})")


class Local:
    """One run a job. A job's id is HOST-PID-TICKS: a process id alone is given again."""

    def submit(
        self,
        folders: Sequence[RunFolder],
        profile: ClusterConfig,
        *,
        job_name: str,  # noqa: ARG002  # the id alone names a process
        avoided: Sequence[str],  # noqa: ARG002  # there is one machine
    ) -> Iterator[tuple[RunFolder, str]]:
        """Start the supervisor of the run in the background."""
        for folder in _alone(folders):
            # The log has the job's id in its name, which is known only once it has started.
            starting = folder.logs_folder / "starting_log.out"
            with starting.open("wb") as log:
                process = subprocess.Popen(
                    _command(folder),
                    cwd=folder.code_folder,
                    env=os.environ | {name: str(value) for name, value in profile.environment.items()},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # In a session of its own: Ctrl-C and the end of the shell do not reach it, and `cancel` kills it as
                    # a group.
                    start_new_session=True,
                )
            process.returncode = 0  # it outlives this process, and nobody waits for it
            job_id = f"{socket.gethostname()}-{process.pid}-{start_ticks(process.pid)}"
            starting.rename(folder.logs_folder / f"{job_id}_0_log.out")
            yield folder, job_id

    def preview(
        self,
        folders: Sequence[RunFolder],
        profile: ClusterConfig,
        *,
        job_name: str,  # noqa: ARG002  # as above
    ) -> list[str]:
        """Return the shell that would do the same."""
        exports = [f"export {name}={shlex.quote(str(value))}" for name, value in profile.environment.items()]
        return [
            "\n".join([*exports, f"cd {shlex.quote(str(folder.code_folder))} && {shlex.join(_command(folder))}"])
            for folder in _alone(folders)
        ]

    def find(self, job_id: str, job_name: str) -> Job | None:  # noqa: ARG002  # as above
        """Return the job while its supervisor lives; of another host nothing is known."""
        # The time of its start tells a process from a later one of the same number.
        parts = _ID.fullmatch(job_id)
        if parts is None:  # a damaged record
            return None
        host, pid, ticks = parts[1], int(parts[2]), int(parts[3])
        if host != socket.gethostname():
            return Job(UNKNOWN, f"a process of {host}; ask there", host)
        return Job("RUNNING", "", host) if start_ticks(pid) == ticks else None

    def cancel(self, job_id: str) -> None:
        """Kill the supervisor; its ranks end with it."""
        job = self.find(job_id, "")
        if job is None:
            return
        if job.state == UNKNOWN:
            raise ValueError(f"{job_id}: is {job.reason}")
        os.killpg(int(job_id.split("-")[-2]), signal.SIGKILL)

    def usable_nodes(self, profile: ClusterConfig, among: Collection[str]) -> list[str]:  # noqa: ARG002  # as above
        """Return this machine."""
        return [socket.gethostname()]


def _alone(folders: Sequence[RunFolder]) -> Sequence[RunFolder]:
    if len(folders) > 1:
        raise ValueError(
            f"{len(folders)} runs would share this machine at once; `perceiver sweep --procs N` trains them one after "
            "the other"
        )
    return folders


def _command(folder: RunFolder) -> list[str]:
    return [sys.executable, "-u", "-m", "launch.supervise.supervisor", str(folder.path)]
