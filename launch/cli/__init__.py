"""The command `perceiver`: options and output. What it does is in the other folders.

Commands import these folders when they are called: most need no PyTorch, whose import takes more than a second.
"""
