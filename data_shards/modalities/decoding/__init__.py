"""Bytes of one file to one array: a module for each modality."""
