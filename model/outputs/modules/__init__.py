"""Latents to answers: the modules of the outputs. Imported where a network is built, not where it is configured."""
