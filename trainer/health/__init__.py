"""The health of a run: hangs, lost ranks, spikes of the loss, requests to stop, and the state of processes."""
