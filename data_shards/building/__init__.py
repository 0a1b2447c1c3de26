"""Raw samples to shard folders, tars of others to indexed ones, and the checks and pictures of both."""
