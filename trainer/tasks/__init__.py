"""What a network is trained for and judged by: losses, the objective, metrics."""
