"""How ranks are started, restarted and stopped, on this machine and through Slurm.

submit --> a scheduler --> a supervisor, or Slurm's batch script --> rank --> run/composition.py
local  ------------------> a supervisor
stop   --> RUN/stop, or the end of the job
"""
