"""The checkpoints of a run: complete or absent, open to read, loadable at any world size."""
