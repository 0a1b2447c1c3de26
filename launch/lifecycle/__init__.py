"""The life of a run on disk: its folder, its attempts, its lock, and whether it restarts.

submit, train --> run_folder --> attempt 1 --> attempt 2 --> ... --> finished, or given up: restart_policy
                                   |
                   claim: one start at a time; fence, heartbeat: the newest attempt alone writes
                   agreement: all ranks of it fail, or none
"""
