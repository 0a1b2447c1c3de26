"""Attention, its layers, and the kernels and forms in which each device computes it."""
