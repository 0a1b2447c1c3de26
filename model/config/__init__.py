"""The configuration of a network, one dataclass a part. Standard library only, so that it loads without torch."""
