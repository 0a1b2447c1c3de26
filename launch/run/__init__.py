"""One run: its creation, composition, evaluation and forks.

creation: the folder, with frozen_code and initial_weights --> composition: loaders and parts --> trainer/loop.py
of a run that exists: trained, evaluation, fork; preprocessing goes with its weights
"""
