"""`perceiver doctor`: is this machine, or that cluster, fit for a run?"""
