"""What a run of many ranks asks of one rank and of the shared disk: `python -m benchmarks.scale` and its parts."""
