"""Where the records of a run go: files, TensorBoard, the terminal, the report.

loop --> meter: steps become a record --> sink_group --> writers: metrics.jsonl, TensorBoard, the terminal
     --> attempt_time: time.json                     --> sink: those of plug-ins
page: report.html, of all that was written
"""
