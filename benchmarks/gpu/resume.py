"""Whether a run that is killed and resumed, or made twice, ends with the same bits; and how long its saves stall it."""

from benchmarks.gpu.runs import Run, wait_for_digits
from benchmarks.gpu.setting import Found, Setting


def measure(setting: Setting) -> Found:
    """Return, for each precision, whether the weights are equal to the bit."""
    steps, precisions = (12, ("fp32",)) if setting.is_tiny else (60, ("bf16", "fp32"))
    every = max(steps // 6, 1)
    found: Found = {"rows": []}
    wait_for_digits(setting)
    for precision in precisions:
        changes = ("train.zero_stage=1", f"train.precision={precision}", f"checkpoint.save_every_steps={every}")
        names = [f"{name}_{precision}" for name in ("first", "again", "killed")]
        first, again, killed = (Run.start(setting, name, steps, *changes) for name in names)
        killed_at = killed.kill_after_a_save()
        resumed = Run.start(setting, names[-1], steps, *changes)
        statuses = [run.process.wait() for run in (first, again, resumed)]
        saves = first.lines("save")
        row = {
            "precision": precision,
            "twice_bit_equal": bool(first.weights()) and first.weights() == again.weights(),
            "resumed_bit_equal": bool(first.weights()) and first.weights() == resumed.weights(),
            "killed_at_step": killed_at,
            "last_losses": [run.lines("train")[-1]["loss"] for run in (first, again, resumed) if run.lines("train")],
            "save_seconds": max((save["seconds"] for save in saves), default=None),
            "errors": [run.log() for run, status in zip((first, again, resumed), statuses, strict=True) if status],
        }
        found["rows"].append(row)
        setting.keep("resume", found)
        print(row, flush=True)
    return found
