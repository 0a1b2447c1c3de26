"""The format of a shard folder: manifest, tars, indexes, members and annotations. Imports only `files`."""
