"""What a network costs, from its configuration alone: operations, memory, time."""
