"""A step of the trainer's engine: time, where the host waits for the GPU, idle time, kernels, a save's stall."""

import collections
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.clock import synchronise
from benchmarks.gpu.setting import Found, Setting
from data_shards.loading.batch import Batch
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine import arithmetic
from trainer.engine.engine import Engine
from trainer.engine.step_report import StartedStep
from trainer.tasks.objective import objective

GOAL = objective({"label": LabelOutput()})
OURS = ("/trainer/", "/model/", "/data_shards/", "/deepspeed/")
CALLS = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpyAsync",
)


@dataclass(frozen=True)
class Case:
    """An engine that is measured."""

    zero_stage: int = 1
    optimizer: str = "adamw"
    deterministic: bool = True
    precision: str = "bf16"
    tf32: bool = False


CASES = (
    Case(),
    Case(deterministic=False),
    Case(optimizer="lamb"),
    Case(zero_stage=0),
    Case(zero_stage=3),
    Case(precision="fp32"),
    Case(precision="fp32", tf32=True),
)
TINY_CASES = (Case(), Case(deterministic=False), Case(optimizer="lamb"))


def measure(setting: Setting) -> Found:
    """Return a row for each engine, and how long a snapshot of the first keeps a step waiting."""
    world = World.alone()
    size = 4 if setting.is_tiny else 32
    found: Found = {"rows": []}
    for case in TINY_CASES if setting.is_tiny else CASES:
        try:
            row = {**vars(case), "batch": size, **_row(setting, case, world, size, found)}
        except (RuntimeError, ValueError) as error:
            row = {**vars(case), "batch": size, "error": f"{type(error).__name__}: {error}"[:300]}
        found["rows"].append(row)
        if setting.on_gpu:
            torch.cuda.empty_cache()
        setting.keep("step", found)
        print(row, flush=True)
    world.close()
    return found


def _row(setting: Setting, case: Case, world: World, size: int, found: Found) -> Found:
    train = TrainConfig(
        steps=1_000,
        global_batch=size,
        zero_stage=case.zero_stage,
        log_every_steps=1_000,
        precision=case.precision,  # type: ignore[arg-type]
        deterministic=case.deterministic,
        tf32=case.tf32,
    )
    arithmetic.apply(train, world.device)
    # As a run does: at stage 3 nothing is compiled.
    config = setting.config("p1", **({"compile": False} if case.zero_stage == 3 else {}))
    optimizer = OptimizerConfig(name=case.optimizer)
    engine = Engine(Perceiver(config, seed=0), GOAL, optimizer=optimizer, train=train, world=world)
    image = config.inputs["image"]
    assert image is not None
    batches = [_batch(size, image.shape, index, pinned=setting.on_gpu) for index in range(4)]
    row: Found = {"step_ms": _step_ms(setting, engine, batches)}
    if setting.on_gpu:
        row |= {"host_waits": _waits(engine, batches[0]), **_launches(engine, batches[0])}
    else:
        row["operations"] = _operations(engine, batches[0])
    if "snapshots" not in found:
        found["snapshots"] = [_snapshot(setting, engine) for _ in range(2)]
    engine.close()
    return row


def _batch(size: int, shape: tuple[int, ...], index: int, *, pinned: bool) -> Batch:
    made = Batch(
        arrays={"image": torch.randint(0, 255, (size, *shape), dtype=torch.uint8)},
        lengths={"image": torch.full((size,), shape[0])},
        labels=torch.randint(0, 1_000, (size,)),
        weights=torch.ones(size),
        keys=tuple(f"{index}-{row}" for row in range(size)),
        index=index,
    )
    return made.pinned() if pinned else made


def _step_ms(setting: Setting, engine: Engine, batches: list[Batch]) -> float:
    _train(engine, batches[: 1 if setting.is_tiny else 3])
    synchronise(setting.device)
    began = time.perf_counter()
    _train(engine, batches)
    synchronise(setting.device)
    return 1e3 * (time.perf_counter() - began) / len(batches)


def _train(engine: Engine, batches: list[Batch]) -> None:
    """Make steps as the trainer's loop does: a report is read when the next step has started."""
    started: collections.deque[StartedStep] = collections.deque()
    for batch in batches:
        started.append(engine.start(batch))
        if len(started) > engine.steps_ahead:
            started.popleft().report()
    for step in started:
        step.report()


def _snapshot(setting: Setting, engine: Engine) -> Found:
    """The first takes the host's memory, too."""
    synchronise(setting.device)
    began = time.perf_counter()
    tensors = engine.snapshot()
    seconds = time.perf_counter() - began
    gigabytes = sum(t.numel() * t.element_size() for kind in tensors.values() for t in kind.values()) / 1e9
    return {"stall_seconds": seconds, "gb": gigabytes, "gb_per_s": gigabytes / seconds}


def _waits(engine: Engine, batch: Batch) -> dict[str, int]:
    """The places in which a step waits for the GPU, as PyTorch's own watch over them tells."""
    places: collections.Counter[str] = collections.Counter()

    def note(message: Warning | str, *_rest: object, **_more: object) -> None:
        if "synchroniz" in str(message):
            stack = [frame for frame in traceback.extract_stack() if any(part in frame.filename for part in OURS)]
            places[" < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(stack[-3:]))] += 1

    # One step is under way when the next begins, as in the loop: the wait for its report belongs to what is measured.
    before = engine.start(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            started = engine.start(batch)
            before.report()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    started.report()
    return dict(places)


def _launches(engine: Engine, batch: Batch, steps: int = 3) -> Found:
    """The kernels of a step, the share of the time in which one runs, and which take longest."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        _train(engine, [batch] * steps)
        torch.cuda.synchronize()
    events = list(seen.events())
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in events
        # A kernel of nccl may only wait for another rank.
        if event.device_type == DeviceType.CUDA and "nccl" not in event.name.lower()
    )
    longest: collections.Counter[str] = collections.Counter()
    end, idle = spans[0][0], 0.0
    for start, stop, name in spans:
        longest[name[:70]] += stop - start
        idle += max(0.0, start - end)
        # Kernels of two streams overlap: idle is the time that none of them covers.
        end = max(end, stop)
    calls = collections.Counter(event.name for event in events if event.name in CALLS)
    return {
        "operations": sum(event.name.startswith("aten::") for event in events) // steps,
        "kernels": len(spans) // steps,
        "idle_share": idle / (end - spans[0][0]),
        "calls": {name: count / steps for name, count in calls.items()},
        "longest_ms": {name: microseconds / 1e3 / steps for name, microseconds in longest.most_common(14)},
    }


def _operations(engine: Engine, batch: Batch) -> int:
    """Operations that a step asks PyTorch for; on a GPU most of them launch a kernel."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        _train(engine, [batch])
    return sum(event.name.startswith("aten::") for event in seen.events())
