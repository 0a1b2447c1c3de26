"""All that speaks to Slurm: profiles, scripts, submission, the queue."""
