"""Steps that are nothing but an exchange, watched; rank 1 meets a fault before the fourth.

Arguments: folder, and the fault: "stopped" (SIGSTOP), "killed" (SIGKILL), "stuck" (waits for a batch that never
comes), "raises".
"""

import os
import signal
import sys
import threading
from pathlib import Path

from trainer.hang import BATCH, STEP, HangWatch
from trainer.world import World

folder, fault = Path(sys.argv[1]), sys.argv[2]
world = World.from_environment(120.0)


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


with HangWatch(folder, world, seconds=4.0) as hang:
    for step in range(100):
        hang.at(BATCH)
        if world.rank == 1 and step == 3:
            meet_the_fault()
        hang.at(STEP)
        world.barrier()
