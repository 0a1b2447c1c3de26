"""The checkpoints of a run: complete or absent, open to read, loadable at any world size.

store    saves and loads on all ranks   --> layout, tensor_file    the manifest and the files of one checkpoint
         finds the one to load          --> choice, names          newest, best, or that of a step
         checks and opens it            --> reading                one rank per file
         deletes old ones               --> retention              last n, every k-th, best
"""
