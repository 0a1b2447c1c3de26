"""Submits runs of the probe, whose configuration `perceiver resume` could not check: submit.py PROFILE RUN ..."""

import sys
from pathlib import Path

from launch.lifecycle import cluster
from launch.lifecycle.run_folder import RunFolder
from launch.schedulers import submission

runs = [RunFolder(Path(word)) for word in sys.argv[2:]]
for sent in submission.send(runs, cluster.load(sys.argv[1])):
    sys.stdout.write(sent.job_id + "\n")
