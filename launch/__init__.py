"""How a run starts, resumes and ends: the command line, local and Slurm runs."""

import sys

from launch.versions import check_python

# Here, since what comes next would fail on an old Python with a traceback that says nothing.
try:
    check_python()
except ValueError as error:
    sys.stderr.write(f"perceiver: {error}\n")
    sys.exit(2)
