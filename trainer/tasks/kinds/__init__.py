"""The tasks themselves: the loss and the metrics of each kind of answer, one file a kind, and the catalogue of all.

The network's side of a kind is in the file of the same name in model/outputs. Others take a task from the catalogue, by
its kind; plug-ins may derive from one.
"""
