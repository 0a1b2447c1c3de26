"""Decoded arrays to the fixed shapes of the config: a module for each modality.

Each has `fit(data, config, rng)`: bytes to (array of the config's shape, number of valid entries along its first axis),
and of what can be longer than that, whether it is.
With a generator it draws the random transforms of training; without one it is the transform of evaluation.
"""
