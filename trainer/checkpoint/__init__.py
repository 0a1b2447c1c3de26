"""The checkpoints of a run: complete or absent, open to read, loadable at any world size.

store    saves and loads on all ranks   --> manifest, tensor_file  the record and the files of one checkpoint
         finds the one to load          --> choice, names          newest, best, or that of a step
         checks and opens it            --> reading                one rank per file
         refuses another network's      --> layout                 names and shapes of tensors
         deletes old ones               --> retention              last n, every k-th, best

Why not DeepSpeed's own checkpoints: docs/decisions/2-a-checkpoint-belongs-to-the-run.md.
"""
