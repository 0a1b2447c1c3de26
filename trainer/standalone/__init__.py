"""Checkpoints of training loops that are not this product's: a plain module, or an engine of DeepSpeed's."""
