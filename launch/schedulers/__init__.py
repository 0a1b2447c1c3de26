"""Schedulers: Slurm, or this machine. They start the jobs of a run and record what was submitted."""
