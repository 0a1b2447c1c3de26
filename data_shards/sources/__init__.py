"""Sources: one module per kind of raw input. Each builds a table for data_shards.building.builder."""
