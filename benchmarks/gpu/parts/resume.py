"""Whether a run that is killed and resumed, or made twice, ends with the same bits; and how long its saves take."""

from benchmarks.gpu.runs import Run, wait_for_shards
from benchmarks.gpu.setting import Found, Setting


def measure(setting: Setting) -> Found:
    """Return, for each precision, whether the weights are equal to the bit. All runs train beside each other."""
    steps, precisions = (12, ("fp32",)) if setting.is_tiny else (150, ("bf16", "fp32"))
    wait_for_shards(setting)
    changes = ("train.zero_stage=1", f"checkpoint.save_every_steps={steps // 6}")

    def start(name: str, precision: str) -> Run:
        return Run.start(setting, f"{name}_{precision}", steps, *changes, f"train.precision={precision}")

    runs = {name: {each: start(name, each) for each in precisions} for name in ("killed", "first", "again")}
    killed_at = {precision: run.kill_after_a_save() for precision, run in runs.pop("killed").items()}
    runs["resumed"] = {each: start("killed", each) for each in precisions}
    found: Found = {"rows": []}
    for precision in precisions:
        made = {name: of[precision] for name, of in runs.items()}
        statuses = {name: run.process.wait() for name, run in made.items()}
        weights = {name: run.weights() for name, run in made.items()}
        row = {
            "precision": precision,
            "twice_bit_equal": bool(weights["first"]) and weights["first"] == weights["again"],
            # Who had ended before it was killed shows nothing.
            "resumed_bit_equal": bool(weights["first"]) and weights["first"] == weights["resumed"]
            if killed_at[precision] < steps
            else None,
            "killed_at_step": killed_at[precision],
            "last_losses": [run.lines("train")[-1]["loss"] for run in made.values() if run.lines("train")],
            "save_seconds": max((save["seconds"] for save in made["first"].lines("save")), default=None),
            "errors": {name: made[name].log() for name, status in statuses.items() if status},
        }
        found["rows"].append(row)
        setting.keep("resume", found)
        print(row, flush=True)
    return found
