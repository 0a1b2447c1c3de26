"""What a modality is to the data: its section of the configuration, its decoding, its transforms.

bytes of a member --> decoding/ --> transforms/, set by transform_config --> an array of the section's shape
                      kinds/, one file a modality, names its own two: loading and sources know the catalogue alone
"""
