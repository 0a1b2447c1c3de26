"""A network in evaluation mode: its answers, its metrics on samples that it was not trained on, its attention maps."""
