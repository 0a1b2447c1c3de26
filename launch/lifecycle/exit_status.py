"""The exit statuses of every process of a run. Standard library only.

Slurm, torchrun and shells pass them on, so a supervisor knows from them alone what it does next, see restart_policy.py.
"""

FINISHED = 0
FAILED = 1
BAD_INPUT = 2
"""An error that a user can correct, reported in one sentence. Another start would fail again."""
RUN_ME_AGAIN = 85
"""Stopped in good order after a save, before the end."""
