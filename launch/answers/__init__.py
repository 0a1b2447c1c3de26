"""Answers of a trained network for new samples: tables, files and vectors. Imported by the command and the library.

answering: a batch becomes rows --> parts: what is answered once, by any number of processes --> tables, vectors
prediction, embedding, generation: the commands; loaded_run: the same in Python
"""
