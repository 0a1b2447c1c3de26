"""Optimizers, and which rank holds, writes and reads which part of their state.

optimizers, lamb   parameter groups, AdamW or LAMB, the learning rate of a step
partitions         which parts of weights and moments DeepSpeed keeps on this rank
ownership          which rank writes and reads a parameter; distributed/exchange.py moves the parts
"""
