"""`perceiver doctor`: checks this machine, and with --cluster that cluster, and prints findings with remedies."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_shards.files.quoting import counted
from launch.doctor import job, rank
from launch.lifecycle import cluster
from launch.lifecycle.cluster import ClusterConfig
from trainer.distributed import descriptors

# A checkpoint of 10 GiB would take eight minutes.
SLOW_MIB_PER_SECOND = 20.0
# Logs of several nodes are read side by side, by their times.
CLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    is_well: bool
    words: str
    remedy: str = ""


def main(profile_name: str | None, folder: Path, *, as_json: bool = False) -> int:
    """Print what was found, as it is found; return 0 if all is well, else 1."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; make it, or name another with --folder")
    profile = cluster.load(profile_name) if profile_name is not None else None
    findings = []
    # One by one: the job on a cluster may wait for minutes, and what is known before it is printed before it.
    for finding in _all(profile, folder):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    return 0 if all(finding.is_well for finding in findings) else 1


def _all(profile: ClusterConfig | None, folder: Path) -> Iterator[Finding]:
    yield from of_machine(folder)
    yield _open_files("this machine", descriptors.hard_limit(), profile.world_size if profile else os.cpu_count() or 1)
    if profile is not None:
        yield from of_cluster(profile, folder)


def _print(finding: Finding) -> None:
    sys.stdout.write(f"{'ok' if finding.is_well else '!!'}  {finding.name:<22} {finding.words}\n")
    if not finding.is_well:
        sys.stdout.write(f"    {'':<22} {finding.remedy}\n")
    # The job's findings may take minutes.
    sys.stdout.flush()


def of_machine(folder: Path) -> Iterator[Finding]:
    """Yield what this machine is like."""
    versions = rank.versions()
    missing = [name for name, found in versions.items() if found == "missing"]
    words = ", ".join(f"{name} {found}" for name, found in versions.items())
    yield Finding("versions", not missing, words, "install the package with the versions of constraints.txt")
    try:
        yield _writing("this machine", rank.write_speed(folder))
    except OSError as error:
        yield Finding(
            "write speed", False, str(error), "correct the permissions of the folder, or name another with --folder"
        )
    free = shutil.disk_usage(folder).free / 2**30
    yield Finding("free disk", free > 1, f"{free:.0f} GiB in {folder}", "checkpoints would not fit; use another folder")
    yield _name_resolution()
    yield _gpus()


def of_cluster(profile: ClusterConfig, folder: Path) -> list[Finding]:
    """Run the doctor's job on the cluster and return what its ranks found."""
    if shutil.which("sbatch") is None:
        remedy = "run this on a login node of the cluster"
        return [Finding("slurm", False, "there is no sbatch on this machine", remedy)]
    try:
        answer = job.run(profile, folder)
    # What Slurm says against the job is a finding, and the doctor's other findings stand.
    except (OSError, ValueError) as error:
        remedy = "change the profile so that Slurm takes the job, or name another folder with --folder"
        return [Finding("job", False, str(error), remedy)]
    # Without all reports, what differs between nodes cannot be told: the log says more.
    if len(answer.reports) < profile.world_size:
        words = f"{len(answer.reports)} of {profile.world_size} ranks of job {answer.job_id} answered; {answer.state}"
        return [Finding("job", False, words, f"it printed: {answer.printed or 'nothing'}")]
    return list(judge(answer.reports, asks_for_gpus=profile.asks_for_gpus))


def judge(reports: Sequence[dict[str, Any]], *, asks_for_gpus: bool) -> Iterator[Finding]:
    """Yield what the reports of all ranks mean."""
    nodes = sorted({report["node"] for report in reports})
    yield Finding("ranks", True, f"{counted(len(reports), 'rank')} on {', '.join(nodes)} met at {reports[0]['master']}")
    here = rank.versions()
    others = sorted({report["node"] for report in reports if report["versions"] != here})
    remedy = "use one environment on a shared disk, or a container, for all"
    yield Finding("same versions", not others, f"differ on {', '.join(others)}" if others else "everywhere", remedy)
    # A file that the doctor made on its own machine: without it nodes have another disk under the same path.
    blind = sorted({report["node"] for report in reports if not report["sees_token"]})
    remedy = "keep runs on a disk that all nodes mount"
    yield Finding("shared folder", not blind, f"not seen by {', '.join(blind)}" if blind else "seen by all", remedy)
    # The slowest counts, since a save is complete when all ranks have written.
    slowest = min(reports, key=lambda report: float(report["write_mib_per_second"]))
    yield _writing(slowest["node"], slowest["write_mib_per_second"])
    skew = max(report["clock"] for report in reports) - min(report["clock"] for report in reports)
    yield Finding("clocks", skew < CLOCK_SECONDS, f"{skew:.3f} s apart", "let chrony or ntp run on the nodes")
    # As in a step: an all-reduce ends when its slowest rank has sent.
    speed = min(report["all_reduce_gib_per_second"] for report in reports)
    remedy = "set network_interface in the profile to the fast one; NCCL_DEBUG=INFO shows which is used"
    yield Finding("all-reduce", speed > 0.01, f"{speed:.2f} GiB/s of each rank", remedy)
    # Time limits and preemptions announce themselves by this signal; a rank that does not hear it loses its last
    # minutes.
    deaf = sorted(report["rank"] for report in reports if not report["signalled"])
    remedy = "without the signal a run saves only when TERM comes; ask for `scancel --signal` to reach job steps"
    words = f"not at ranks {', '.join(map(str, deaf))}" if deaf else "USR2 reaches every rank"
    yield Finding("signals", not deaf, words, remedy)
    fewest = min(reports, key=lambda report: int(report["open_files"]))
    yield _open_files(fewest["node"], fewest["open_files"], len(reports))
    yield from _gpus_of_nodes(reports, nodes, asks_for_gpus=asks_for_gpus)


def _gpus_of_nodes(
    reports: Sequence[dict[str, Any]], nodes: Sequence[str], *, asks_for_gpus: bool
) -> Iterator[Finding]:
    counts = {node: {len(report["gpus"]) for report in reports if report["node"] == node} for node in nodes}
    words = ", ".join(f"{node}: {' or '.join(map(str, sorted(seen)))}" for node, seen in counts.items())
    # On a cluster without GPUs nobody misses them.
    is_blind = asks_for_gpus and any(0 in seen for seen in counts.values())
    remedy = (
        "the profile asks for GPUs and torch sees none: the driver, a torch without CUDA, or the container"
        if is_blind
        else "the nodes differ; set constraint in the profile"
    )
    yield Finding("GPUs", not is_blind and len(set().union(*counts.values())) == 1, words, remedy)
    sick = sorted({f"{report['node']}: {line}" for report in reports for line in report["sick_gpus"]})
    words = "; ".join(sick) or "no uncorrected errors"
    yield Finding(
        "GPU memory", not sick, words, "name the node under exclude in the profile and inform the administrators"
    )


def _writing(where: str, mib_per_second: float) -> Finding:
    remedy = "checkpoints will take long; put runs on a faster disk, or leave checkpoint.asynchronous on"
    return Finding("write speed", mib_per_second > SLOW_MIB_PER_SECOND, f"{mib_per_second:.0f} MiB/s, {where}", remedy)


def _open_files(where: str, limit: int, world_size: int) -> Finding:
    words = f"{limit} a process, {where}; a rank of {world_size} needs {descriptors.needed(world_size)}"
    problem = descriptors.problem(limit, world_size)
    return Finding("open files", not problem, words, problem.partition("; ")[2])


def _name_resolution() -> Finding:
    name = socket.gethostname()
    try:
        return Finding("host name", True, f"{name} is {socket.gethostbyname(name)}")
    except OSError as error:
        # Where a host cannot resolve its own name, gloo falls back to the loopback, with no more than a warning.
        return Finding("host name", False, f"{name}: {error}", "add it to /etc/hosts, or set network_interface")


def _gpus() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPUs here", True, f"none; {os.cpu_count()} CPU cores")
    lines = rank.gpus()
    words, is_well = "; ".join(lines) or "nvidia-smi shows none", bool(lines) and not rank.sick(lines)
    return Finding("GPUs here", is_well, words, "memory errors or no driver: reset or replace the GPU")
