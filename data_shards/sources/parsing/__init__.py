"""Parsers of the files that sources read: tables, plain text, class names, labels. Only sources import them."""
