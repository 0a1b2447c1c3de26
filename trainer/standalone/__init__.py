"""Checkpoints for other training loops: a plain module, or a DeepSpeed engine of one's own."""
