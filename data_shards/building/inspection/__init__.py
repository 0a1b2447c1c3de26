"""What a shard folder holds: every sample read and decoded, and pictures of some. Imports the rest of building."""
