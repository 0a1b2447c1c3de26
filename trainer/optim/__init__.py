"""Optimizers, and which rank holds, writes and reads which part of their state."""
