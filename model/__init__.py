"""Tensors in, tensors out: the Perceiver family, its losses and its costs."""
