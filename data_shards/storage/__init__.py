"""Where shard folders lie: on this machine, or behind a URL with a cache. Imports format and files."""
