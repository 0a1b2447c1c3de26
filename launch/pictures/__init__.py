"""Pictures that a run writes: its curves, and samples with their predictions."""
