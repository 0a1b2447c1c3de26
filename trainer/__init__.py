"""The training loop and its state: engine, checkpoints, evaluation, metrics.

    shards --> feed --> steps --> loop --> checkpoint   saves and loads, on all ranks
                          |        |  `--> evaluation, sinks
                        engine     |
               one optimizer step  +-- health           stop requests, spikes, hangs
               through DeepSpeed

launch/run/composition.py puts the parts together.
"""
