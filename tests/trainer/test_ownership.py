"""Each parameter has one writer, who holds most of it; writers share the work."""

from trainer.ownership import Extent, owners


def test_whole_copies_are_shared_out_evenly() -> None:
    everywhere = [Extent(str(index), 0, 10) for index in range(8)]
    shares = list(owners([everywhere] * 4).values())
    assert all(shares.count(rank) == 2 for rank in range(4))


def test_a_cut_parameter_goes_to_who_holds_most_of_it() -> None:
    held = [[Extent("a", 0, 10), Extent("b", 0, 2)], [Extent("b", 2, 10), Extent("c", 0, 5)]]
    assert owners(held) == {"a": 0, "b": 1, "c": 1}


def test_padding_at_the_end_does_not_give_everything_to_the_first() -> None:
    held = [[Extent(str(index), 0, 100) for index in range(4)], [Extent(str(index), 100, 199) for index in range(4)]]
    assert sorted(owners(held).values()) == [0, 0, 1, 1]
