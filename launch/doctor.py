"""`perceiver doctor`: is this machine, and with --cluster that cluster, fit for a run? Plain words and remedies."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch import cluster, doctor_rank, queue, slurm
from launch.cluster import ClusterConfig
from launch.freeze import installed_folder

SLOW_MIB_PER_SECOND = 20.0
CLOCK_SECONDS = 1.0
WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    is_well: bool
    words: str
    remedy: str = ""


def main(profile_name: str | None, folder: Path, *, as_json: bool = False) -> int:
    """Print what was found; return 0 if all is well, else 1."""
    findings = list(of_machine(folder))
    if profile_name is not None:
        findings += of_cluster(cluster.load(profile_name), folder)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        for finding in findings:
            mark = "ok" if finding.is_well else "!!"
            sys.stdout.write(f"{mark}  {finding.name:<22} {finding.words}\n")
            if not finding.is_well:
                sys.stdout.write(f"    {'':<22} {finding.remedy}\n")
    return 0 if all(finding.is_well for finding in findings) else 1


def of_machine(folder: Path) -> Iterator[Finding]:
    """Yield what this machine is like."""
    versions = doctor_rank.versions()
    missing = [name for name, found in versions.items() if found == "missing"]
    words = ", ".join(f"{name} {found}" for name, found in versions.items())
    yield Finding("versions", not missing, words, "install the package with the versions of constraints.txt")
    yield _writing("this machine", doctor_rank.write_speed(folder))
    free = shutil.disk_usage(folder).free / 2**30
    yield Finding("free disk", free > 1, f"{free:.0f} GiB in {folder}", "checkpoints would not fit; use another folder")
    yield _name_resolution()
    yield _gpus()


def of_cluster(profile: ClusterConfig, folder: Path) -> list[Finding]:
    """Run the doctor's job on the cluster and return what its ranks found."""
    if shutil.which("sbatch") is None:
        remedy = "run this on a login node of the cluster"
        return [Finding("slurm", False, "there is no sbatch on this machine", remedy)]
    # In the folder where the runs will be, for it is the one that has to be shared.
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as name:
        shared = Path(name).resolve()
        (shared / "token").touch()
        job_name = shared.name.lstrip(".")
        code = installed_folder()
        job_id = slurm.submit_module("launch.doctor_rank", shared, profile, code=code, job_name=job_name)
        try:
            reports = _wait_for_reports(shared, job_id, job_name, profile.world_size)
        finally:
            queue.cancel(job_id)
        if len(reports) < profile.world_size:
            printed = "\n".join(log.read_text() for log in shared.glob("*_log.out"))[-2000:]
            words = f"{len(reports)} of {profile.world_size} ranks of job {job_id} answered in {WAIT_SECONDS:.0f} s"
            return [Finding("job", False, words, f"it printed: {printed or 'nothing; see squeue for why it waits'}")]
        return list(judge(reports, asks_for_gpus=bool(profile.gpus_per_node or profile.gres)))


def judge(reports: Sequence[dict[str, Any]], *, asks_for_gpus: bool) -> Iterator[Finding]:
    """Yield what the reports of all ranks mean."""
    nodes = sorted({report["node"] for report in reports})
    yield Finding("ranks", True, f"{len(reports)} ranks on {', '.join(nodes)} met at {reports[0]['master']}")
    here = doctor_rank.versions()
    others = sorted({report["node"] for report in reports if report["versions"] != here})
    remedy = "use one environment on a shared disk, or a container, for all"
    yield Finding("same versions", not others, f"differ on {', '.join(others)}" if others else "everywhere", remedy)
    blind = sorted({report["node"] for report in reports if not report["sees_token"]})
    remedy = "keep runs on a disk that all nodes mount"
    yield Finding("shared folder", not blind, f"not seen by {', '.join(blind)}" if blind else "seen by all", remedy)
    slowest = min(reports, key=lambda report: float(report["write_mib_per_second"]))
    yield _writing(slowest["node"], slowest["write_mib_per_second"])
    skew = max(report["clock"] for report in reports) - min(report["clock"] for report in reports)
    yield Finding("clocks", skew < CLOCK_SECONDS, f"{skew:.3f} s apart", "let chrony or ntp run on the nodes")
    speed = min(report["all_reduce_gib_per_second"] for report in reports)
    remedy = "set network_interface in the profile to the fast one; NCCL_DEBUG=INFO shows which is used"
    yield Finding("all-reduce", speed > 0.01, f"{speed:.2f} GiB/s of each rank", remedy)
    deaf = sorted(report["rank"] for report in reports if not report["signalled"])
    remedy = "without the signal a run saves only when TERM comes; ask for `scancel --signal` to reach job steps"
    words = f"not at ranks {', '.join(map(str, deaf))}" if deaf else "USR2 reaches every rank"
    yield Finding("signals", not deaf, words, remedy)
    yield from _gpus_of_nodes(reports, nodes, asks_for_gpus=asks_for_gpus)


def _gpus_of_nodes(
    reports: Sequence[dict[str, Any]], nodes: Sequence[str], *, asks_for_gpus: bool
) -> Iterator[Finding]:
    counts = {node: {len(report["gpus"]) for report in reports if report["node"] == node} for node in nodes}
    words = ", ".join(f"{node}: {' or '.join(map(str, sorted(seen)))}" for node, seen in counts.items())
    is_blind = asks_for_gpus and any(0 in seen for seen in counts.values())
    remedy = (
        "the profile asks for GPUs and torch sees none: the driver, a torch without CUDA, or the container"
        if is_blind
        else "the nodes differ; set constraint in the profile"
    )
    yield Finding("GPUs", not is_blind and len(set().union(*counts.values())) == 1, words, remedy)
    sick = sorted({f"{report['node']}: {line}" for report in reports for line in report["sick_gpus"]})
    words = "; ".join(sick) or "no uncorrected errors"
    yield Finding("GPU memory", not sick, words, "name the node under exclude in the profile and tell its keepers")


def _wait_for_reports(shared: Path, job_id: str, job_name: str, world_size: int) -> list[dict[str, Any]]:
    deadline, told = time.monotonic() + WAIT_SECONDS, False
    while time.monotonic() < deadline:
        if not told and len(list(shared.glob("ready_*.json"))) == world_size:
            # What Slurm itself does some time before the limit.
            subprocess.run(["scancel", "--signal=USR2", job_id], check=True, timeout=60)
            told = True
        job = queue.find(job_id, job_name)
        reports = list(shared.glob("report_*.json"))
        if len(reports) == world_size or (job is not None and job.is_over):
            break
        time.sleep(0.5)
    return sorted(
        (json.loads(path.read_text()) for path in shared.glob("report_*.json")), key=lambda each: each["rank"]
    )


def _writing(where: str, mib_per_second: float) -> Finding:
    remedy = "checkpoints will take long; put runs on a faster disk, or leave checkpoint.asynchronous on"
    return Finding("write speed", mib_per_second > SLOW_MIB_PER_SECOND, f"{mib_per_second:.0f} MiB/s, {where}", remedy)


def _name_resolution() -> Finding:
    name = socket.gethostname()
    try:
        return Finding("host name", True, f"{name} is {socket.gethostbyname(name)}")
    except OSError as error:
        return Finding("host name", False, f"{name}: {error}", "add it to /etc/hosts, or set network_interface")


def _gpus() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPUs here", True, f"none; {os.cpu_count()} CPU cores")
    lines = doctor_rank.gpus()
    words, is_well = "; ".join(lines) or "nvidia-smi shows none", bool(lines) and not doctor_rank.sick(lines)
    return Finding("GPUs here", is_well, words, "memory errors or no driver: reset or replace the GPU")
