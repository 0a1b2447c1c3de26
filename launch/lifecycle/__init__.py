"""The life of a run on disk: its folder, its attempts, its lock, and whether it restarts."""
