"""Storage of shard folders: on this machine, or behind a URL with a cache. Imports format and files."""
