"""How ranks are started, restarted and stopped, on this machine and through Slurm."""
