"""Latents to outputs: queries, heads, losses, and the quality of an output."""
