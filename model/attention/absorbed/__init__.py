"""Attention whose keys and values are the tokens themselves: in tiles, on a grid, and their Triton kernels."""
