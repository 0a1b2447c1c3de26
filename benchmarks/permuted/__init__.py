"""How much a network relies on the order of pixels: `python -m benchmarks.permuted`, and the plug-in of its runs."""
