"""One module a kind of raw input; each makes a table that data_shards.building.builder turns into shards."""
