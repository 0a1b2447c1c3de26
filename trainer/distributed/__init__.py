"""Processes of a run: who they are, on which device, and how they exchange."""
