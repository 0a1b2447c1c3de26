"""The batch of any step of this rank, made ahead of time by threads or processes."""
