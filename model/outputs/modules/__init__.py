"""Latents to answers: the modules of the outputs, imported where a network is built, not where it is configured."""
