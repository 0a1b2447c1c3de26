"""Raw samples to shard folders, tars of others to indexed ones; inspection/ checks and draws both."""
