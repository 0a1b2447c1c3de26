"""What a network needs in training alone: dropout, and the time and memory of a backward pass.

The layers and the encoder call it, as the configuration says; no answer in evaluation depends on it.
"""
