"""What a compiled layer moves through a GPU's memory beside its products and attention: it may not grow.

Counted from what Inductor plans for a GPU that is not there. Whoever lowers a number writes the lower one here.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.networks.network_files import network_config
from model.budget.step_cost import step_work

ROOT = Path(__file__).parents[2]
P1 = ROOT / "configs" / "paper" / "p1.yaml"
SCENARIO = Path(__file__).parent / "scenarios" / "fused_work.py"
# By type of the residual stream and width of the MLP: kernels, and moves of an element of the layer's input.
MOST = {"fp32 1": (42, 26.3), "fp32 4": (42, 34.4), "bf16 1": (41, 18.8), "bf16 4": (41, 26.9)}


@pytest.mark.parametrize("name", MOST)
def test_the_plan_has_what_a_compiled_layer_moves(name: str) -> None:
    residual_dtype, mlp_ratio = name.split()
    overrides = [f"model.residual_dtype={residual_dtype}", f"model.self_attend.mlp_ratio={mlp_ratio}"]
    one, two = (network_config(P1, [*overrides, f"model.layers_per_block={layers}"]) for layers in (1, 2))
    of_a_layer = step_work(two, "bf16", "cuda").moved_bytes - step_work(one, "bf16", "cuda").moved_bytes
    moves = of_a_layer / one.num_blocks / (4 * one.num_latents * one.latent_width)
    assert moves == pytest.approx(MOST[name][1], rel=0.02)
    apart = dataclasses.replace(two, compile=False)
    assert step_work(apart, "bf16", "cuda").moved_bytes > step_work(two, "bf16", "cuda").moved_bytes


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
