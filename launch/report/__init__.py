"""Reports on runs: status, logs, attention maps."""
