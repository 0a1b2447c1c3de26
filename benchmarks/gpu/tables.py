"""Write the tables of docs/gpu.md from a result: python -m benchmarks.gpu.tables [benchmarks/results/NAME.json]

Only the part between the markers is replaced. Without a result the tables are empty, and say so.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.gpu.setting import ROOT, Found

PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NOT_MEASURED = "not measured yet"

Column = tuple[str, Callable[[Found], object]]


def main(arguments: Sequence[str]) -> None:
    found: Found = json.loads(Path(arguments[0]).read_text()) if arguments else {}
    source = Path(arguments[0]).name if arguments else ""
    PAGE.write_text(written(PAGE.read_text(), found, source))


def written(page: str, found: Found, source: str = "") -> str:
    """Return the page with the tables of a result, or with empty ones."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE}: expected the lines {BEGIN} and {END}, and tables between them; write them again")
    return f"{before}{BEGIN}\n\n{_tables(found, source)}\n\n{END}{after}"


def _tables(found: Found, source: str) -> str:
    parts = [_facts(found, source)]
    for part, title, key, columns in TABLES:
        of_part = found.get(part, {})
        rows = of_part.get(key, [])
        parts += [
            f"**{title}**",
            _table([name for name, _ in columns], ([of(row) for _, of in columns] for row in rows)),
        ]
        if not rows:
            parts.append(NOT_MEASURED)
        if "failed" in of_part:
            parts.append(f"This part did not end: {of_part['failed']}.")
    lines = [found.get("kernel", {}).get("line")]
    lines += [value for name, value in found.get("constants", {}).items() if str(value).startswith(f'"{name}": Read')]
    code = "\n".join(line for line in lines if line)
    parts += [
        "**The resulting `TILES` (model/attention/absorbed/grid_tiles.py) and "
        "`READ_CONSTANTS` (model/attention/read_costs.py)**"
    ]
    parts.append(f"```\n{code}\n```" if code else NOT_MEASURED)
    return "\n\n".join(parts)


def _facts(found: Found, source: str) -> str:
    facts = found.get("facts")
    if not facts:
        return f"No GPU was measured: every table is empty ({NOT_MEASURED})."
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "triton", "deepspeed", "transformers"))
    rates = ", ".join(f"{facts[f'product_tflops_{each}']:.0f} TFLOP/s in {each}" for each in ("bf16", "fp32"))
    where = f"benchmarks/results/{source}" if source else "one result"
    return f"{facts['card']}; {versions}; commit {facts['commit'][:12]}; large products at {rates}. From {where}."


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1_000 else f"{value:.0f}"
        case dict():
            return "; ".join(f"{name} {count}" for name, count in value.items()) or "none"
        case list():
            return ", ".join(_cell(each) for each in value)
    # Either would end the cell of a Markdown table.
    return str(value).replace("|", "/").replace("\n", " ")


def _of(key: str, factor: float = 1.0) -> Callable[[Found], object]:
    def value(row: Found) -> object:
        found = row.get(key)
        return found * factor if isinstance(found, float) else found

    return value


def _by(row: Found) -> str:
    policy = row.get("policy", "none")
    parts = (row.get("form"), "compiled" if row.get("compiled") else "", "" if policy == "none" else policy)
    how = ", ".join(part for part in parts if part)
    return f"{row['by']} ({how})" if how else str(row["by"])


def _of_plan(row: Found) -> object:
    planned = row.get("planned_mib")
    return row["activations_mib"] / planned if planned and row.get("activations_mib") else None


def _waits(row: Found) -> object:
    return sum(row["host_waits"].values()) if "host_waits" in row else None


def _precision(row: Found) -> object:
    return f"{row.get('precision')}, products in TF32" if row.get("tf32") else row.get("precision")


_NETWORKS: tuple[Column, ...] = (
    ("network", _of("network")),
    ("by", _by),
    ("batch", _of("batch")),
    ("first step, s", _of("first_s")),
    ("ms", _of("ms")),
    ("samples/s", _of("samples_per_s")),
    ("% of 990 TFLOP/s, the papers' operations", _of("paper_share_of_peak", 100)),
    ("% of 990 TFLOP/s, operations done", _of("done_share_of_peak", 100)),
    ("peak MiB", _of("peak_mib")),
    ("activations / plan", _of_plan),
    ("error", _of("error")),
)
_BLOCKS: tuple[Column, ...] = (
    ("batch", _of("batch")),
    ("compiled", _of("compiled")),
    ("ms", _of("ms")),
    ("% of 990 TFLOP/s", _of("share_of_peak", 100)),
    ("products, ms", _of("product_ms")),
    ("% of 990 TFLOP/s within the products", _of("product_share_of_peak", 100)),
)
_RESUME: tuple[Column, ...] = (
    ("precision", _of("precision")),
    ("run twice: bit-equal", _of("twice_bit_equal")),
    ("killed and resumed: bit-equal", _of("resumed_bit_equal")),
    ("killed at step", _of("killed_at_step")),
    ("longest save, s", _of("save_seconds")),
)
_STEP: tuple[Column, ...] = (
    ("ZeRO", _of("zero_stage")),
    ("optimizer", _of("optimizer")),
    ("precision", _precision),
    ("deterministic", _of("deterministic")),
    ("batch", _of("batch")),
    ("ms", _of("step_ms")),
    ("kernels", _of("kernels")),
    ("operations", _of("operations")),
    ("idle %", _of("idle_share", 100)),
    ("waits of the host", _waits),
    ("error", _of("error")),
)
_PROFILE: tuple[Column, ...] = (
    ("ZeRO", _of("zero_stage")),
    ("optimizer", _of("optimizer")),
    ("where the host waits", _of("host_waits")),
    ("longest kernels, ms per step", _of("longest_ms")),
)
_SNAPSHOTS: tuple[Column, ...] = (
    ("stall, s", _of("stall_seconds")),
    ("GB", _of("gb")),
    ("GB/s", _of("gb_per_s")),
)
_ZERO: tuple[Column, ...] = (
    ("ZeRO", _of("zero_stage")),
    ("precision", _of("precision")),
    ("exit status", _of("status")),
    ("loss", _of("loss")),
    ("MiB", _of("memory_mib")),
    ("error", _of("error")),
)
_KERNEL: tuple[Column, ...] = (
    ("reader", _of("reader")),
    ("batch", _of("batch")),
    ("forward, ms", _of("forward_ms")),
    ("both, ms", _of("both_ms")),
    ("ns a score", _of("ns_a_score")),
    ("error", _of("error")),
)
_SHARES: tuple[Column, ...] = (
    ("device in model/budget/hardware.py", _of("hardware")),
    ("product_share", _of("product_share")),
    ("memory_share", _of("memory_share")),
    ("transfer_share, to the host", _of("host_share")),
    ("memory, TB/s", _of("memory_tb_per_s")),
    ("to the host, GB/s", _of("host_gb_per_s")),
)
_ATTENTION: tuple[Column, ...] = (
    ("precision", _of("precision")),
    ("channels of a head", _of("width")),
    ("mask", _of("mask")),
    ("kernel", _of("free")),
    ("deterministic", _of("deterministic")),
    ("expected", _of("expected")),
)
# Part, title, where its rows are, columns.
TABLES: tuple[tuple[str, str, str, tuple[Column, ...]], ...] = (
    ("networks", "A training step in bf16, forward and backward", "rows", _NETWORKS),
    ("blocks", "Six self-attention layers of the latents, forward and backward in bf16", "rows", _BLOCKS),
    ("resume", "Bit-equality", "rows", _RESUME),
    ("step", "A step of the trainer on the first paper's network", "rows", _STEP),
    ("step", "Where such a step's time goes", "rows", _PROFILE),
    ("step", "How long a save stalls a step, the first time and later", "snapshots", _SNAPSHOTS),
    ("zero", "Whole runs of the digits, side by side on one GPU", "rows", _ZERO),
    ("kernel", "512 latents reading 224 x 224 pixels", "rows", _KERNEL),
    ("constants", "Fraction of the peak rates that is reached", "shares", _SHARES),
    ("facts", "The kernel that scaled_dot_product_attention calls", "attention", _ATTENTION),
)


if __name__ == "__main__":
    main(sys.argv[1:])
