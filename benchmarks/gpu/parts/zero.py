"""Whole runs at every ZeRO stage and precision: whether they train, to which loss, in what time and memory."""

from benchmarks.gpu.runs import Run, wait_for_shards
from benchmarks.gpu.setting import Found, Setting

STAGES = (0, 1, 2, 3)
PRECISIONS = ("bf16", "fp32", "fp16")
# fp16 has no loss scale at stage 0.
PAIRS = tuple((stage, precision) for precision in PRECISIONS for stage in STAGES if (stage, precision) != (0, "fp16"))


def measure(setting: Setting) -> Found:
    """Return a row for each pair. They run beside each other: their times say little, their losses and memory much."""
    steps, pairs = (6, ((1, "bf16"),)) if setting.is_tiny else (60, PAIRS)
    found: Found = {"rows": []}
    wait_for_shards(setting)
    changes = (f"checkpoint.save_every_steps={steps}",)
    runs = [
        Run.start(
            setting,
            f"zero{stage}_{precision}",
            steps,
            f"train.zero_stage={stage}",
            *changes,
            f"train.precision={precision}",
        )
        for stage, precision in pairs
    ]
    for (stage, precision), run in zip(pairs, runs, strict=True):
        status = run.process.wait()
        last = run.lines("train")[-1] if run.lines("train") else {}
        row = {
            "zero_stage": stage,
            "precision": precision,
            "status": status,
            "loss": last.get("loss"),
            "step_ms": 1e3 * last["step_seconds"] if last else None,
            "memory_mib": last.get("memory_mib"),
            "error": run.log() if status else "",
        }
        found["rows"].append(row)
        setting.keep("zero", found)
        print(row, flush=True)
    return found
