"""Inputs to tokens: the adapters of the modalities, and the byte array that they are joined to."""
