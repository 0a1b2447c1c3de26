"""The ranks of a run on this machine, restarted by the rules of a cluster."""
