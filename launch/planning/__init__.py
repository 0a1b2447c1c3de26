"""What a run and a cluster need, computed before anything is submitted."""
