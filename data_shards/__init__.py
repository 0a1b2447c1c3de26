"""Raw files become tar shards, and tar shards become batches in an order that resumes exactly."""
