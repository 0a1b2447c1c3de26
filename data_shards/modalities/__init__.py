"""What a modality is to the data: its section of the configuration, its decoding, its transforms."""
