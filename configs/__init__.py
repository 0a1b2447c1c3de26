"""What a run is: the typed configuration and the YAML file of each named run."""
