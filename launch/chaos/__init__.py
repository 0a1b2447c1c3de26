"""Fault campaigns: runs with injected faults must end with the same weights.

an undisturbed run   --------------------------------------------------------> hashes of weights and moments
disturbed runs       start, fault | damage between two starts | start, fault ... --> the same hashes

campaign draws the faults from a seed and compares; ranks starts the processes, of which one meets a fault (rank);
damage, disk and supervisor_faults act from outside.
"""
