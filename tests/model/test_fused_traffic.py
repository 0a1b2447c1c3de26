"""What a compiled layer moves through a GPU's memory beside its products and attention: it may not grow.

Counted from what Inductor plans for a GPU that is not there. Whoever lowers a number writes the lower one here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIO = Path(__file__).parent / "scenarios" / "fused_work.py"
# By type of the residual stream and width of the MLP: kernels, and moves of an element of the layer's input.
MOST = {"fp32 1": (42, 26.3), "fp32 4": (42, 34.4), "bf16 1": (41, 18.8), "bf16 4": (41, 26.9)}


@pytest.mark.slow
def test_a_compiled_layer_launches_and_moves_no_more_than_it_did() -> None:
    pytest.importorskip("triton")
    asked = [name.replace(" ", ":") for name in MOST]
    command = [sys.executable, "-W", "ignore", str(SCENARIO), *asked]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == MOST.keys()
    for name, (most_kernels, most_moves) in MOST.items():
        assert found[name]["kernels"] <= most_kernels, name
        assert 0.9 * most_moves < found[name]["moves"] <= most_moves, name
