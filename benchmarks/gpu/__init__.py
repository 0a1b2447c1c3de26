"""Measurements of this product on a GPU, in one run of at most 8 minutes; docs/gpu.md has the commands and the figures.

Here: the command, the setting, and what several parts measure with; parts/ has what is measured. Nothing outside
benchmarks/ imports this.
"""
