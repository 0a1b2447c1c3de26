"""An exchange is made in as few rounds as its window allows, whichever pair of ranks has most to send."""

import pytest
import torch

from trainer.distributed.exchange import Exchange, Extent
from trainer.distributed.world import World


def extents(*lengths: tuple[str, int]) -> list[Extent]:
    return [Extent(name, 3, 3 + length) for name, length in lengths]


@pytest.mark.parametrize("rank", range(3))
@pytest.mark.parametrize(
    ("held", "owners", "round_elements", "num_rounds"),
    [
        # What is where it is owned, or nobody's, does not travel.
        ([extents(("a", 5)), [], extents(("b", 9))], {"a": 0}, 4, 0),
        ([extents(("a", 8)), [], []], {"a": 1}, 4, 2),
        ([extents(("a", 9)), [], []], {"a": 1}, 4, 3),
        # Two pieces of one pair lie one behind the other.
        ([extents(("a", 5), ("b", 4)), [], []], {"a": 1, "b": 1}, 4, 3),
        ([extents(("a", 5), ("b", 4)), [], []], {"a": 1, "b": 1}, 9, 1),
        # One that sends to two, or receives from two, has half a window for each.
        ([extents(("a", 5), ("b", 4)), [], []], {"a": 1, "b": 2}, 4, 3),
        ([extents(("a", 5)), extents(("a", 4)), []], {"a": 2}, 4, 3),
        # Two pairs that share no rank, and two that share one in another direction, have a whole one each.
        ([extents(("a", 8)), extents(("b", 8)), []], {"a": 1, "b": 2}, 4, 2),
        # A window is never empty.
        ([extents(("a", 5)), extents(("a", 4)), []], {"a": 2}, 1, 5),
    ],
)
def test_an_exchange_takes_so_many_rounds_on_every_rank(
    rank: int, held: list[list[Extent]], owners: dict[str, int], round_elements: int, num_rounds: int
) -> None:
    exchange = Exchange(held, owners, World(rank, 3, rank, torch.device("cpu")), round_elements=round_elements)
    assert exchange.num_rounds == num_rounds
