"""Parsers of single file formats, for those that no library reads fast enough, or safely, or as the modality needs it.

Only the modules of data_shards/modalities/decoding call them: which format a file has is theirs to find out.
"""
