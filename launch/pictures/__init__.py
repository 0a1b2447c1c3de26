"""Pictures that a run draws of itself: its curves, and samples with their predictions."""
