"""The format of a shard folder: manifest, tars, indexes, members and what they say of a sample. Imports files alone."""
