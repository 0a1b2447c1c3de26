"""Steps that are nothing but an exchange, watched; a rank, 1 unless another is given, meets a fault before the fourth.

Arguments: folder, and the fault: "stopped" (SIGSTOP), "killed" (SIGKILL), "stuck" (waits for a batch that never
comes), "raises", or a phase outside of the steps, such as "a save", in which it is stuck. Then the seconds of the
watch, the rank that meets the fault, and the number of ranks of a host: all are here, and take themselves for others.
"""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from trainer.distributed import node
from trainer.distributed.world import World
from trainer.health.hang import BATCH, STEP, HangWatch

folder, fault = Path(sys.argv[1]), sys.argv[2]
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 4.0
culprit = int(sys.argv[4]) if len(sys.argv) > 4 else 1
world = World.from_environment(120.0)
if len(sys.argv) > 5:
    host = f"n{world.rank // int(sys.argv[5])}"
    node._host = lambda: (host, "", "")  # type: ignore[assignment]
    socket.gethostname = lambda: host  # type: ignore[assignment]


def meet_the_fault() -> None:
    match fault:
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stuck":
            threading.Event().wait()
        case "raises":
            raise RuntimeError("the fault")


with HangWatch(folder, world, seconds=seconds) as hang:
    for step in range(100):
        hang.at(BATCH)
        if step == 3 and fault not in ("stopped", "killed", "stuck", "raises"):
            # All ranks are in it, and all but one wait for that one.
            hang.at(fault)
            if world.rank == culprit:
                threading.Event().wait()
            world.barrier()
        if world.rank == culprit and step == 3:
            meet_the_fault()
        hang.at(STEP)
        world.barrier()
