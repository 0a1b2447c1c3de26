"""Arrays to tokens: the modules of the modalities. Imported where a network is built, not where it is configured."""
