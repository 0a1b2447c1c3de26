"""The typed configuration of a run, and the YAML file of each named run."""
