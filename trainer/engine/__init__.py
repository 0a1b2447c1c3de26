"""One optimizer step through DeepSpeed, its settings, arithmetic and memory. Only deepspeed_start imports deepspeed.

engine --> deepspeed_start, deepspeed_settings    the step itself
       --> update                                 clips and applies a gradient, or changes nothing
       --> unfreezing                             what is trained from a later step on
       --> step_report, stopwatch                 what a step did, read a step later on a GPU
       --> sharded_state                          what a checkpoint saves and restores
before the first step: arithmetic (precision, determinism), memory (the micro-batch that fits)
for the plan of a run: communication
"""
