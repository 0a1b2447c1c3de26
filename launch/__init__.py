"""How a run starts, goes on and ends: the command line, local and Slurm runs."""
