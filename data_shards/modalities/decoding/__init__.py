"""Bytes of one file to one array: a module for each modality, and formats/ for the files that are parsed here."""
