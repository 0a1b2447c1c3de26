"""Fault campaigns: runs with injected faults must end with the same weights."""
