"""A network that was trained, with all that its use takes: class names, preprocessing, and its smaller sizes.

Of a run or of an import. For launch/answers, launch/networks and the command line, which ask, export and evaluate it;
launch/run takes the class names alone, because a run keeps those of its shards from its first start.
"""
