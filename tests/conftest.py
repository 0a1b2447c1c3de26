"""Shapes are checked while the tests run: every jaxtyping annotation of the model is executed."""

from jaxtyping import install_import_hook

install_import_hook(["model"], "beartype.beartype")
