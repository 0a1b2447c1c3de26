"""Which sample fills which slot of which batch, as arithmetic, and every random number of the data."""
