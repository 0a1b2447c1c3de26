"""Save twice, meeting a fault in the second save; print what load then finds.

Arguments: folder, and the fault: "kill" ends rank 1 with SIGKILL while it writes, "full" is a disk that takes no more
bytes on rank 1 (a real limit of the kernel), "look" loads what is there.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from tiny import engine, share, whole_batch
from torch import Tensor

from trainer.checkpoint import store as checkpoint
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.run_state import RunState

folder, fault = Path(sys.argv[1]), sys.argv[2]
world = World.from_environment(60.0)
store = Store(folder, CheckpointConfig(keep_last=2), world)
trained = engine(world, zero_stage=1)
result = {}


def killed(path: Path, tensors: dict[str, Tensor]) -> None:
    path.write_bytes(b"half of a file")
    os.kill(os.getpid(), signal.SIGKILL)


if fault != "look":
    trained.step(share(whole_batch(0), world))
    store.save(trained, RunState(step=1))
    store.wait()
    trained.step(share(whole_batch(1), world))
    if world.rank == 1 and fault == "kill":
        checkpoint.write = killed
    if world.rank == 1 and fault == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    store.save(trained, RunState(step=2))
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    result["errors"] = [report.error for report in store.reports()]
    result["names"] = sorted(path.name for path in folder.iterdir())
    trained.step(share(whole_batch(2), world))
    store.save(trained, RunState(step=3))
    store.wait()
    result["names_later"] = sorted(path.name for path in folder.iterdir())
loaded = store.load(trained)
result |= {"step": loaded.state.step, "damaged": loaded.damaged}
store.close()
trained.close()
world.close()
sys.stdout.write(json.dumps(result))
