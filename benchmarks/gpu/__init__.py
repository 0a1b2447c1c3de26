"""Measurements of this product on a GPU, in one run of at most 8 minutes; docs/gpu.md has the commands and the figures.

Each part is a module with `measure(setting)`, run in a process of its own. Nothing outside benchmarks/ imports this.
"""
