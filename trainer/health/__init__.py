"""The health of a run: hangs, lost ranks, spikes of the loss, requests to stop, and the state of processes.

stop_request   a signal, a file, a time limit     all ranks save after the step and leave with status 85
spikes         steps that went wrong              rollback to the newest checkpoint, without those batches
hang           a rank that is dead or stuck       it is named, all ranks write their stacks, status 1
run_lock       a second start of the run          it is refused, status 2
"""
