"""One run from its first start on: its creation, composition and forks.

creation: the folder, with frozen_code and initial_weights --> composition: loaders and parts --> trainer/loop.py
of a run that exists: fork, and trained/, which opens its network to evaluate, ask or export it
"""
