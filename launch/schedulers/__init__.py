"""Who starts a run's job and knows what became of it: Slurm, or this machine; and the record of what was submitted."""
