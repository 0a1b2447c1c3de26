"""All that speaks to Slurm: profiles, scripts, submission, the queue.

submit --> door --> sbatch --> the script of script.py: batch begin --> srun: supervise/rank.py --> batch end
status --> queue: squeue, sinfo, scancel
inherited: which variables of the shell pass; packing: the environment as one file
"""
