"""What a network is trained for and judged by: a task with its metrics, and the objective that adds the tasks of a run.

metric, answer --> task --> kinds/, one file a kind of answer --> objective, which the engine and evaluations call
"""
