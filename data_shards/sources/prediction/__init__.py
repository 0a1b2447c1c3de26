"""New files, tables and shards as a trained run reads them: for launch.answers alone, which writes the answers.

new_samples --> new_files --> run_inputs    which of the files and columns a run reads
"""
