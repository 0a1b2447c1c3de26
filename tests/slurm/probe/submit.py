"""Submits a run of the probe, whose configuration `perceiver resume` could not check: submit.py RUN PROFILE."""

import sys
from pathlib import Path

from launch import cluster, submission
from launch.folder import RunFolder

(sent,) = submission.send([RunFolder(Path(sys.argv[1]))], cluster.load(sys.argv[2]))
sys.stdout.write(sent.job_id + "\n")
