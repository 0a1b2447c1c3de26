"""Which variables of the submitting shell are passed to Slurm's commands and to a job.

sbatch, srun, squeue and scancel take options from variables, and a shell inside of an allocation has dozens that
describe that allocation. A job is asked for by its profile alone, so none of them passes.
"""

import os
from collections.abc import Mapping

# Options of Slurm's commands, what describes an allocation or a step, and what a launcher says of its ranks.
PREFIXES = (
    "OMPI_",
    "PERCEIVER_",
    "PMIX_",
    "PMI_",
    "SACCT_",
    "SALLOC_",
    "SBATCH_",
    "SCANCEL_",
    "SCONTROL_",
    "SINFO_",
    "SLURMD_",
    "SLURM_",
    "SQUEUE_",
    "SRUN_",
    "TORCHELASTIC_",
)
WHICH_SLURM = ("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Variables that locate Slurm and identify the user, not options of its commands."""
PATH_OF_PYTHON = "PYTHONSAFEPATH"
"""The ranks run the code of the run, which Python finds in their working directory unless this forbids it."""
DEVICES = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Inside of an allocation these are its own devices, not those of the job that is asked for."""


def dropped(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the variables that do not pass into a job, sorted."""
    names = {name for name in environment if _is_said_of_another(name)}
    if "SLURM_JOB_ID" in environment:
        names |= {name for name in DEVICES if name in environment}
    return tuple(sorted(names))


def passed(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for Slurm's commands, and for the job where the command is sbatch."""
    without = dropped(environment)
    return {name: value for name, value in environment.items() if name not in without}


def of_local_ranks(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for ranks that are started here: those of an allocation describe others, but its devices."""
    return {name: value for name, value in environment.items() if not _is_said_of_another(name)}


def sentence(environment: Mapping[str, str] = os.environ) -> str:
    """Return what a submission does not pass on, in words; empty where that is nothing."""
    names = dropped(environment)
    return f"note: the profile decides; not passed on from this shell: {', '.join(names)}\n" if names else ""


def _is_said_of_another(name: str) -> bool:
    return (name.startswith(PREFIXES) and name not in WHICH_SLURM) or name == PATH_OF_PYTHON
