"""The training loop and its state: engine, checkpoints, evaluation, metrics."""
