"""Fault campaigns: runs that are disturbed and must end with the same weights."""
