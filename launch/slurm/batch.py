"""The batch script's steps before and after the ranks: `python -m launch.slurm.batch begin|end RUN`.

Begin takes the attempt's number and a port for the ranks to meet and prints them as shell; end records how the attempt
went and asks Slurm for the next one. Standard library only, like all that it imports.

    begin: number, port --> srun: the ranks --> end: record, restart policy --> the job ends
      ^                                           | again
      |                                           v
      +---- Slurm starts the script again <---- scontrol requeue; then, while the job waits, its bad nodes are excluded
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.lifecycle import attempts
from launch.lifecycle.attempts import JOB
from launch.lifecycle.exit_status import BAD_INPUT, FAILED, FINISHED, RUN_ME_AGAIN
from launch.lifecycle.holder import refuse_if_trained
from launch.lifecycle.restart_policy import Attempt, RestartConfig, bad_nodes, dispensable, failures_by_node, verdict
from launch.lifecycle.run_folder import RunFolder
from launch.slurm import queue

PROFILE_EXCLUDES = "PERCEIVER_EXCLUDE"
"""The nodes that the profile excludes; all others of the job are of the run's own failures, and may come back."""

# Below the ports that kernels hand out to outgoing connections, which begin at 32768.
FIRST_PORT, NUM_PORTS = 20_000, 12_000

PATIENCE_SECONDS = 300
"""How long a requeue is retried; a controller that restarts is away for a minute or two."""

FINAL = ("pending execution", "presently disabled", "permission denied", "Invalid job id")
"""Refusals that do not change: Slurm was faster, as when the node was lost or preempted, or it never will requeue."""


def begin(folder: RunFolder) -> str:
    """Start the record of a new attempt and return the shell lines that its ranks need."""
    # Before the attempt takes its number: a start that can write nothing is none.
    folder.refuse_links_to_nothing()
    folder.check_space()
    job_id = os.environ[JOB]
    # One of Slurm was superseded by this job, or is this job itself before its requeue.
    refuse_if_trained(folder)
    nodes = _scontrol("show", "hostnames", os.environ["SLURM_JOB_NODELIST"]).split()
    attempt = attempts.begin(folder, job_id=job_id, nodes=nodes)
    where = f"job {job_id} on {' '.join(nodes)}"
    _log(f"attempt {attempt.number} of {folder.path.name}: {where} from step {attempt.first_step}")
    variables = {
        "PERCEIVER_ATTEMPT": attempt.number,
        # Slurm starts rank 0 on the first node of its list.
        "MASTER_ADDR": nodes[0],
        "MASTER_PORT": free_port(preferred_port(int(os.environ["SLURM_JOB_ID"]), attempt.number)),
    }
    return "\n".join(f"export {name}={shlex.quote(str(value))}" for name, value in variables.items())


def end(folder: RunFolder, status: int, config: RestartConfig) -> int:
    """Record how the attempt ended, requeue the job if the run must restart, and return the job's exit status."""
    # A requeue ends this script too, with TERM; it must live on for what follows.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    number = int(os.environ["PERCEIVER_ATTEMPT"])
    if number != attempts.current(folder):
        # A ghost: this node was lost and has come back. A requeue now would end the job's later attempt.
        _log(f"attempt {number} was superseded by attempt {attempts.current(folder)} and leaves the job to it")
        return status
    ended, job_id = attempts.end(folder, number, status), os.environ[JOB]
    # Limits are those of a submission; what is known of nodes stays.
    history = [*(attempt for attempt in attempts.history(folder) if attempt.number < number), ended]
    own = [attempt for attempt in history if attempt.job_id == job_id or attempt is ended]
    stop_requested = folder.stop_path.exists()
    decision = verdict(own, config, stop_requested=stop_requested)
    _log(f"attempt {number} ended with status {status}: {decision.reason}")
    if decision.again:
        requeue(job_id)
        avoid(job_id, history, config)
    elif status == RUN_ME_AGAIN:
        # Where slurm.conf has RequeueExit=85 Slurm would start again what is to stop.
        return FINISHED if stop_requested else FAILED
    return status


def requeue(job_id: str) -> None:
    """Put the job back into the queue; a Slurm that is away is asked again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while refusal := _refusal("requeue", job_id):
        _log(f"scontrol requeue {job_id}: {refusal}")
        if any(words in refusal for words in FINAL) or time.monotonic() > deadline:
            return
        # Its controller is being restarted, or is so busy that it does not answer in time.
        time.sleep(5)


def avoid(job_id: str, history: Sequence[Attempt], config: RestartConfig) -> None:
    """Keep the next attempt of the job away from bad nodes as far as it can do without them, and from no others.

    Only a job that waits can be changed, which it does from the requeue on.
    """
    fields = _fields(job_id)
    # (null) is Slurm's word for nothing.
    before = "" if fields.get("ExcNodeList") == "(null)" else fields.get("ExcNodeList", "")
    always = os.environ.get(PROFILE_EXCLUDES, before)
    bad = bad_nodes(history, config)
    # A node that the job names cannot be avoided: Slurm would never start it.
    kept = dispensable(
        [node for node in bad if node not in queue.expanded(fields.get("ReqNodeList", ""))],
        usable=_usable(fields, history, queue.expanded(always)) if bad else (),
        needed=int(os.environ["SLURM_JOB_NUM_NODES"]),
    )
    for node in bad:
        why = f"failures began there in attempts {', '.join(map(str, failures_by_node(history)[node]))}"
        _log(f"the next attempt avoids {node}: {why}" if node in kept else f"the job cannot do without {node}; {why}")
    names = ",".join(filter(None, [always, *kept]))
    if names != before and (refusal := _refusal("update", f"JobId={job_id}", f"ExcNodeList={names}")):
        _log(f"scontrol update ExcNodeList={names}: {refusal}")


def _usable(fields: Mapping[str, str], history: Sequence[Attempt], excluded: Sequence[str]) -> list[str]:
    """Return the nodes that the job could run on if only its profile excluded any."""
    known = {node for attempt in history for node in attempt.nodes}
    constraint = "" if fields.get("Features") == "(null)" else fields.get("Features", "")
    nodes = queue.usable_nodes(fields.get("Partition", ""), constraint, known)
    return [node for node in nodes if node not in excluded]


def preferred_port(job_id: int, attempt: int) -> int:
    """Return a port that two jobs on one node, and two attempts of one job, do not share."""
    # 101 apart, so that the attempts of a job do not reach the ports of the next job.
    return FIRST_PORT + (job_id * 101 + attempt) % NUM_PORTS


def free_port(first: int) -> int:
    """Return the first port from `first` on that nothing on this node uses or has just used."""
    for offset in range(NUM_PORTS):
        port = FIRST_PORT + (first - FIRST_PORT + offset) % NUM_PORTS
        with socket.socket() as probe:
            try:
                # Without SO_REUSEADDR, so that a port on which connections are still closing counts as used.
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {FIRST_PORT} to {FIRST_PORT + NUM_PORTS}")


def _refusal(*words: str) -> str:
    """Return what Slurm says against a request, or an empty string if it grants it."""
    try:
        _scontrol(*words)
    except subprocess.CalledProcessError as error:
        return error.stderr.strip() or f"exit status {error.returncode}"
    except subprocess.TimeoutExpired as error:
        return f"no answer within {error.timeout} s"
    return ""


def _fields(job_id: str) -> dict[str, str]:
    """Return what Slurm knows of the job, by its names; nothing where it does not answer."""
    try:
        words = _scontrol("show", "job", "--oneliner", job_id).split()
    except subprocess.SubprocessError:
        return {}
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", *words], check=True, capture_output=True, text=True, timeout=60).stdout


def _log(line: str) -> None:
    # Standard output is the shell's.
    sys.stderr.write(f"perceiver: {line}\n")


def main(words: list[str]) -> int:
    """Run `begin RUN` or `end RUN STATUS MAX_REQUEUES MAX_FAILURES EXCLUDE_AFTER`."""
    folder = RunFolder(Path(words[1]))
    if words[0] == "begin":
        try:
            sys.stdout.write(begin(folder) + "\n")
        except ValueError as refusal:
            _log(str(refusal))
            return BAD_INPUT
        return 0
    # The limits come as words: the profile is YAML, which the standard library does not read.
    status, *limits = (int(word) for word in words[2:])
    return end(folder, status, RestartConfig(*limits))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
