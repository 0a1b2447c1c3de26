"""What a GPU makes of this product, in one run of at most 8 minutes; docs/gpu.md says how, and shows the figures.

Each part is a module with `measure(setting)`, run in a process of its own. Nothing outside benchmarks/ imports this.
"""
