"""From shards to batches: reading, decoding, the batch of any step at once, and the list of bad samples."""
