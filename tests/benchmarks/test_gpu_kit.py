"""The GPU kit, tried on the CPU: every part is there with its figures, and the tables follow from them."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import tables
from benchmarks.gpu.__main__ import LIMITS, TINY_PATIENCE
from benchmarks.gpu.operations import operations
from benchmarks.gpu.setting import ROOT
from model.attention.wide import wide_attention

Found = dict[str, Any]

FOUND: Found = {
    "facts": {
        "card": "a card",
        "commit": "0123456789abcdef",
        **dict.fromkeys(("python", "torch", "triton", "deepspeed", "transformers"), "1.0"),
        "product_tflops_bf16": 700.0,
        "product_tflops_fp32": 50.0,
        "attention": [{"precision": "bf16", "width": 64, "mask": False, "free": "flash", "deterministic": "flash"}],
    },
    "networks": {
        "rows": [
            {
                "network": "p1",
                "by": "this",
                "form": "separable",
                "compiled": False,
                "batch": 64,
                "first_s": 2.5,
                "ms": 160.0,
                "samples_per_s": 400.0,
                "paper_share_of_peak": 0.85,
                "done_share_of_peak": 0.5,
                "peak_mib": 20_000.0,
                "activations_mib": 19_000.0,
                "planned_mib": 20_000.0,
            }
        ]
    },
    "step": {"failed": "ended with its limit of 75 s", "rows": [{"zero_stage": 1, "host_waits": {"engine.py:1": 2}}]},
    "constants": {"cuda": '"cuda": ReadConstants(plain=1, absorbed=2, separable=3),', "rate_tflops": 700.0},
}


def page() -> str:
    return f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter"


def test_what_is_measured_is_in_the_tables_and_a_changed_figure_changes_them() -> None:
    text = tables.written(page(), FOUND, "card.json")
    assert text.startswith(f"before\n{tables.BEGIN}")
    assert text.endswith(f"{tables.END}\nafter")
    assert "old" not in text
    assert "a card; python 1.0" in text
    assert "benchmarks/results/card.json" in text
    assert "| p1 | this (separable) | 64 | 2.5 | 160 | 400 | 85 | 50 | 20000 | 0.95 | - |" in text
    assert "This part did not end: ended with its limit of 75 s." in text
    assert '"cuda": ReadConstants(plain=1, absorbed=2, separable=3),' in text
    changed = copy.deepcopy(FOUND)
    changed["networks"]["rows"][0]["samples_per_s"] = 401.0
    assert "| p1 | this (separable) | 64 | 2.5 | 160 | 401 |" in tables.written(page(), changed, "card.json")
    # Written twice is written once.
    assert tables.written(text, FOUND, "card.json") == text


def test_tables_of_nothing_are_empty_and_say_so() -> None:
    text = tables.written(page(), {})
    assert text.count(tables.NOT_MEASURED) == len(tables.TABLES) + 2
    with pytest.raises(ValueError, match="expected the lines"):
        tables.written("a page without markers", FOUND)


def test_the_page_shows_a_result_that_is_there_or_says_that_none_is() -> None:
    text = tables.PAGE.read_text()
    found = {path.name: json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    # Others of that folder are no results of a GPU.
    pages = [tables.written(text, result, name) for name, result in found.items() if "facts" in result]
    assert text in (pages or [tables.written(text, {})])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "x", "--parts", "facts,speed"], "--parts: expected some of facts,.*,zero, got speed"),
        ([], "--out: name the folder of the result"),
    ],
)
def test_a_part_that_is_not_there_is_refused_and_so_is_a_result_without_a_place(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *arguments])
    with pytest.raises(SystemExit) as refused:
        kit.main()
    assert refused.value.code == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_all_parts_have_time_in_eight_minutes() -> None:
    assert sum(LIMITS.values()) <= 8 * 60


def test_operations_are_those_of_products_and_of_this_networks_own_attention() -> None:
    q, k, v = (torch.randn(2, length, 5, requires_grad=True) for length in (3, 7, 7))
    score = 2 * 2 * 3 * 7 * 5
    found = operations(lambda: wide_attention(q, k, v, None, 1.0).sum().backward())
    # Two products forwards; backwards the scores again, and the gradients of shares, values, queries and keys.
    assert found == {"wide_attention": 2 * score, "wide_attention_backward": 5 * score}
    assert operations(lambda: (q @ k.mT).sum().backward()) == {"bmm": 3 * score}


# Of each part, the key of its rows, and the figures of every row.
FIGURES = {
    "facts": ("attention", ("width", "free", "deterministic")),
    "networks": (
        "rows",
        ("first_s", "ms", "samples_per_s", "paper_share_of_peak", "done_tflop", "done_share_of_peak", "peak_mib"),
    ),
    "blocks": ("rows", ("ms", "share_of_peak", "product_ms", "product_share_of_peak")),
    "resume": ("rows", ("killed_at_step", "save_seconds", "last_losses")),
    "step": ("rows", ("step_ms", "operations")),
    "kernel": ("rows", ("forward_ms", "both_ms", "ns_a_score")),
    "constants": ("rows", ("operations_a_score",)),
    "zero": ("rows", ("loss", "step_ms", "memory_mib")),
}


@pytest.mark.slow
@pytest.mark.timeout(60 * TINY_PATIENCE * 8)
def test_every_part_measures_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-1_000:]
    # All that a machine without a network has to give back.
    assert {path.name for path in tmp_path.iterdir()} == {"gpu_check.json", "gpu_check.log"}
    found: Found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(found) == list(LIMITS) == list(FIGURES)
    for part, (key, figures) in FIGURES.items():
        assert found[part][key], part
        for row in found[part][key]:
            assert not row.get("error"), row
            assert all(row[figure] not in (None, "", []) for figure in figures), row
    assert {"commit", "card", "torch", "triton", "deepspeed", "product_tflops_bf16"} <= found["facts"].keys()
    by = {(row["network"], row["by"], row["form"]) for row in found["networks"]["rows"]}
    assert {("p1", "this", "separable"), ("p1", "this", "absorbed"), ("p1", "this", "plain")} <= by
    assert {("i1", "transformers", ""), ("p1", "PyTorch's attention", "")} <= by
    assert {"none", "selective", "offload"} == {row["policy"] for row in found["networks"]["rows"]}
    for row in found["resume"]["rows"]:
        assert 0 < row["killed_at_step"] < 12, row
        assert row["twice_bit_equal"], row
        assert row["resumed_bit_equal"], row
    assert {row["optimizer"] for row in found["step"]["rows"]} == {"adamw", "lamb"}
    assert {row["deterministic"] for row in found["step"]["rows"]} == {True, False}
    assert len(found["step"]["snapshots"]) == 2
    (shares,) = found["constants"]["shares"]
    assert all(shares[name] > 0 for name in ("product_share", "memory_share", "host_share"))
    assert found["constants"]["cpu"].startswith('"cpu": ReadConstants(plain=')
    text = tables.written(page(), found, "tiny.json")
    assert "no GPU; python" in text
    assert text.count(tables.NOT_MEASURED) == 0
