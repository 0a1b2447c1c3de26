"""What a step moves through a GPU's memory beside its products, counted on tensors without values: it may not grow.

Per kind: kernels that are launched, and bytes that they read and write, of networks whose layers are not compiled, in
bf16 at a batch of 64. `pytest -s` prints them. Whoever lowers a number writes the lower one here.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from fake_gpu import Work, step

from launch.networks.network_files import network_config
from model.budget.step_cost import step_work

PAPER = Path(__file__).parents[2] / "configs" / "paper"
BATCH = 64
# Their results are kept from one pass to the other; what they take is decided by the network.
DEAR = ("product", "attention")
ONE_LAYER = ("model.num_blocks=1", "model.layers_per_block=1", "model.num_cross_attends=1")


def work(row: str, *overrides: str) -> Work:
    found = step(network_config(PAPER / f"{row}.yaml", overrides), BATCH, bf16=True)
    for kind, traffic in found.traffic.most_common():
        print(f"{row} {kind:10} {found.launches[kind]:5} launches {traffic / 1e9:7.1f} GB")  # noqa: T201
    return found


def elementwise(found: Work) -> tuple[int, float]:
    """Launches and gigabytes of all that is neither a product nor attention."""
    kinds = [kind for kind in found.launches if kind not in DEAR]
    return sum(found.launches[kind] for kind in kinds), sum(found.traffic[kind] for kind in kinds) / 1e9


def one_layer(row: str, *overrides: str) -> tuple[int, float]:
    """What a second layer adds to a network of one."""
    first, second = (work(row, *ONE_LAYER, *overrides, f"model.layers_per_block={layers}") for layers in (1, 2))
    (launches, gigabytes), (more_launches, more_gigabytes) = elementwise(first), elementwise(second)
    return more_launches - launches, more_gigabytes - gigabytes


def test_a_layer_of_latents_launches_and_moves_no_more_than_it_did() -> None:
    launches, gigabytes = one_layer("p1")
    assert launches <= 64
    assert gigabytes <= 5.32


@pytest.mark.parametrize(("mlp_ratio", "most_gigabytes"), [(1, 2.78), (4, 4.13)])
def test_a_narrow_residual_stream_halves_what_a_layer_moves(mlp_ratio: int, most_gigabytes: float) -> None:
    overrides = ("model.residual_dtype=bf16", "model.compile=false", f"model.self_attend.mlp_ratio={mlp_ratio}")
    launches, gigabytes = one_layer("p1", *overrides)
    # Two more for each norm, of its weights.
    assert launches <= 68
    assert gigabytes <= most_gigabytes
    networks = (
        network_config(PAPER / "p1.yaml", [*ONE_LAYER, *overrides, f"model.layers_per_block={layers}"])
        for layers in (1, 2)
    )
    told = [step_work(network, "bf16", "cuda") for network in networks]
    # As for a wide one, the estimate is an upper bound.
    assert 1 < BATCH * (told[1].moved_bytes - told[0].moved_bytes) / (1e9 * gigabytes) < 1.4


@pytest.mark.slow
@pytest.mark.parametrize(("row", "most_launches", "most_gigabytes"), [("p1", 3_294, 313), ("i1", 2_344, 260)])
def test_a_network_of_the_papers_moves_no_more_than_it_did(row: str, most_launches: int, most_gigabytes: float) -> None:
    launches, gigabytes = elementwise(work(row))
    assert launches <= most_launches
    assert gigabytes <= most_gigabytes
