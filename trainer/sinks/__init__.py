"""Where the records of a run go: files, TensorBoard, the terminal, the report."""
