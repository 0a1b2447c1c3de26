"""Scores against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import average_precision_score

from model.measures.quality import average_precision, peak_signal_to_noise


@pytest.mark.parametrize("levels", [1_000_000, 4])
def test_average_precision_is_scikit_learns_also_with_ties(levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, levels, (50, 6), generator=generator).double()
    targets = torch.rand(50, 6, generator=generator) < 0.3
    expected = [average_precision_score(targets[:, c].numpy(), scores[:, c].numpy()) for c in range(6)]
    torch.testing.assert_close(average_precision(scores, targets), torch.tensor(expected), check_dtype=False)


def test_a_class_that_no_sample_has_is_no_number() -> None:
    precision = average_precision(torch.rand(4, 2), torch.tensor([[True, False]]).expand(4, 2))
    assert precision[0] == 1
    assert precision[1].isnan()


def test_an_error_of_a_tenth_of_the_peak_is_twenty_decibels() -> None:
    ratio = peak_signal_to_noise(torch.full((2, 3), 0.2), torch.zeros(2, 3), peak=2.0)
    torch.testing.assert_close(ratio, torch.tensor([20.0, 20.0]))
