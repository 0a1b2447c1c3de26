"""The life of a run on the disk: its folder, its attempts, who holds it, and whether it starts again."""
