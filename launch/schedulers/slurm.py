"""Slurm as a scheduler: one batch script per run, or a job array for several."""

import sys
from collections.abc import Collection, Iterator, Sequence

from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.lifecycle.scheduler import Job
from launch.slurm import inherited, packing, queue


class Slurm:
    """Every run as a job, several as arrays of as many tasks as this Slurm lets one have."""

    def submit(
        self, folders: Sequence[RunFolder], profile: ClusterConfig, *, job_name: str, avoided: Sequence[str]
    ) -> Iterator[tuple[RunFolder, str]]:
        """Submit the runs and yield each with its job's id, such as 12 or, of a task, 12_3."""
        # Here: a rank that starts asks whether its run is queued, and submits nothing; submitit takes long to import.
        from launch.slurm import door

        sys.stderr.write(inherited.sentence())
        # Once for all runs of a sweep.
        packed = packing.pack(profile)
        for part in _arrays(folders):
            job_ids = door.submit(part, profile, job_name=job_name, exclude=avoided, packed=packed)
            # As soon as each array is accepted: if the next is refused, these are known.
            yield from zip(part, job_ids, strict=True)

    def preview(self, folders: Sequence[RunFolder], profile: ClusterConfig, *, job_name: str) -> list[str]:
        """Return the batch scripts."""
        from launch.slurm import door

        packed = packing.archive(profile)
        return [door.script(part, profile, job_name=job_name, packed=packed) for part in _arrays(folders)]

    def find(self, job_id: str, job_name: str) -> Job | None:
        """Return the job as squeue shows it."""
        return queue.find(job_id, job_name)

    def cancel(self, job_id: str) -> None:
        """End the job; Slurm signals it with TERM first."""
        queue.cancel(job_id)

    def usable_nodes(self, profile: ClusterConfig, among: Collection[str]) -> list[str]:
        """Return the nodes of the profile's partition and constraint that take jobs, without those it excludes."""
        excluded = queue.expanded(profile.exclude)
        nodes = queue.usable_nodes(profile.partition, profile.constraint, among)
        return [node for node in nodes if node not in excluded]


def _arrays(folders: Sequence[RunFolder]) -> list[Sequence[RunFolder]]:
    """Return the runs of each job array: as many as Slurm lets one have, where it says how many."""
    length = (queue.max_array_tasks() if len(folders) > 1 else None) or len(folders)
    return [folders[start : start + length] for start in range(0, len(folders), length)]
