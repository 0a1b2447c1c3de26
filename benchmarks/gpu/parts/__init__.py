"""What is measured: each module has `measure(setting)`, which the command calls in a process of its own."""
