"""Optimizers, and which rank holds, writes and reads which part of their state.

groups             which parameters are trained, from which step on, with what rate and weight decay
optimizers, lamb   AdamW or LAMB, the learning rate of a step
partitions         which parts of weights and moments DeepSpeed keeps on this rank
ownership          which rank writes and reads a parameter; distributed/exchange.py moves the parts
"""
