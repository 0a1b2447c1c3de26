"""Raw files become tar shards; tar shards become batches in an order that resumes exactly."""
