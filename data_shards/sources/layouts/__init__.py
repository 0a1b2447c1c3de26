"""Published data sets as they are handed out: one module per layout, all listed in sources/catalogue.py."""
