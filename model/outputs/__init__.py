"""Latents to answers: queries, heads, losses, and the measures of an answer."""
