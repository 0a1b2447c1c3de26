"""Losses and measures of answers, as pure functions of tensors."""
