"""The order of samples as arithmetic, and every random number of the data."""
