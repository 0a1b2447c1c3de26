"""Losses are sums whose counts are explicit."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.measures.losses import (
    absolute_error_sum,
    binary_cross_entropy_sum,
    cross_entropy_sum,
    end_point_error_sum,
    labelled,
    regression_error_sum,
    soft_cross_entropy_sum,
    squared_error_sum,
)


def test_the_sum_over_micro_batches_is_the_sum_over_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    labels, weights = torch.tensor([0, 3, -1, 2, 1, 0]), torch.tensor([1.0, 2.0, 1.0, 0.5, 0.0, 1.0])
    whole = cross_entropy_sum(logits, labels, weights, smoothing=0.1)
    parts = [cross_entropy_sum(logits[at], labels[at], weights[at], smoothing=0.1) for at in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), whole)
    assert labelled(labels, weights).sum() == 4.5


def test_a_sample_without_a_label_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cross_entropy_sum(logits, torch.tensor([-1, 1]), torch.ones(2)).backward()
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


HALF = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(0)) * 3
WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "loss",
    [
        lambda said: cross_entropy_sum(said[:, :, 0, 0], torch.tensor([0, 3, 4]), WEIGHTS, smoothing=0.1),
        lambda said: soft_cross_entropy_sum(said[:, :, 0, 0], torch.eye(5)[:3], WEIGHTS),
        lambda said: binary_cross_entropy_sum(said[:, :, 0, 0], torch.eye(5)[:3], WEIGHTS),
        lambda said: end_point_error_sum(said, (HALF.flip(0) + 0.01), WEIGHTS),
    ],
    ids=["cross entropy", "soft cross entropy", "binary cross entropy", "end point error"],
)
def test_losses_of_answers_in_half_precision_are_computed_in_float32(
    loss: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    said = HALF.to(dtype)
    found, expected = loss(said), loss(said.double())
    assert found.dtype == torch.float32
    # float32 keeps 7 digits, half precision 3; targets in half precision are as exact in both.
    torch.testing.assert_close(found.double(), expected.double(), rtol=2e-6, atol=0, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_error_of_values_and_targets_in_half_precision_is_their_difference_in_float32(dtype: torch.dtype) -> None:
    values, targets = HALF.to(dtype), (HALF.flip(0) * 1.7).to(dtype)
    expected = ((values.double() - targets.double()).abs().flatten(1).mean(dim=1) * WEIGHTS).sum()
    torch.testing.assert_close(
        absolute_error_sum(values, targets, WEIGHTS).double(), expected, rtol=2e-6, atol=0, check_dtype=False
    )


def test_soft_targets_that_are_one_class_give_the_cross_entropy() -> None:
    logits, labels = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 3])
    soft = soft_cross_entropy_sum(logits, torch.eye(4)[labels], torch.ones(3))
    torch.testing.assert_close(soft, cross_entropy_sum(logits, labels, torch.ones(3)))


def test_hidden_bytes_alone_count_in_masked_language_modelling() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    ids, hidden = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5)
    hidden[1, 3] = 1.0
    loss = cross_entropy_sum(logits, ids, hidden)
    torch.testing.assert_close(loss, -logits[1, 3].log_softmax(dim=0)[0])


def test_classes_that_do_not_exclude_each_other_are_judged_one_by_one() -> None:
    loss = binary_cross_entropy_sum(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(loss, 1.5 * torch.tensor(2.0).log())


def test_errors_of_grids_are_means_over_a_sample_and_sums_over_samples() -> None:
    ones = torch.ones(2, 3, 4, 2)
    torch.testing.assert_close(absolute_error_sum(ones, 0 * ones, torch.tensor([1.0, 2.0])), torch.tensor(3.0))
    motion = ones * torch.tensor([3.0, 4.0])
    torch.testing.assert_close(end_point_error_sum(motion, 0 * ones, torch.tensor([1.0, 2.0])), torch.tensor(15.0))


def test_a_squared_error_is_that_of_the_difference() -> None:
    values, targets = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[1.0, 4.0], [0.0, -1.0]])
    # (0 + 4) / 2 of the first sample, (9 + 0) / 2 of the second.
    torch.testing.assert_close(squared_error_sum(values, targets, torch.tensor([1.0, 2.0])), torch.tensor(11.0))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Differences of 1, 2 and 6 in units of 2: 0.5, 1 and 3. The fourth number is not known.
        ("absolute", 2 * (0.5 + 1) + 3),
        ("squared", 2 * (0.25 + 1) + 9),
        # Half the square below a delta of 0.75, and a line from there on.
        ("huber", 2 * (0.125 + 0.75 * (1 - 0.375)) + 0.75 * (3 - 0.375)),
    ],
)
def test_errors_of_numbers_are_taken_in_their_unit_and_of_those_that_are_known(
    loss: Literal["absolute", "squared", "huber"], expected: float
) -> None:
    values = torch.tensor([[1.0, -2.0], [10.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[2.0, 0.0], [4.0, torch.nan]])
    weights = torch.tensor([[2.0], [1.0]])
    found = regression_error_sum(values, targets, weights, scale=2.0, loss=loss, delta=0.75)
    torch.testing.assert_close(found, torch.tensor(expected))
    found.backward()
    assert values.grad is not None
    assert (values.grad != 0).tolist() == [[True, True], [True, False]]


def test_classes_that_do_not_exclude_each_other_count_by_their_weights() -> None:
    logits, targets = torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    each = -(targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log())
    weights, classes = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 4.0])
    expected = ((each * classes).sum(dim=1) / 5 * weights).sum()
    torch.testing.assert_close(binary_cross_entropy_sum(logits, targets, weights, classes), expected)


def test_a_smoothed_label_has_its_part_and_all_classes_the_rest() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    logs = logits.log_softmax(dim=1)[0]
    expected = -(0.7 * logs[1] + 0.3 * logs.mean())
    found = cross_entropy_sum(logits, torch.tensor([1]), torch.ones(1), smoothing=0.3)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(cross_entropy_sum(logits, torch.tensor([1]), torch.ones(1)), -logs[1])


def test_motion_that_is_unknown_counts_nowhere() -> None:
    said = torch.zeros(3, 2, 2, 2)
    # What is said of unknown motion is far from anything that may stand in its place.
    said[0, 0], said[1] = 100.0, 100.0
    said.requires_grad_()
    target = torch.tensor([3.0, 4.0]).expand(3, 2, 2, 2).clone()
    target[0, 0], target[1] = torch.nan, torch.nan
    error = end_point_error_sum(said, target, torch.ones(3))
    torch.testing.assert_close(error, torch.tensor(10.0))
    error.backward()
    assert said.grad is not None
    assert not said.grad[0, 0].any()
    assert not said.grad[1].any()
    torch.testing.assert_close(said.grad[0, 1], 2 * said.grad[2, 1])


def test_losses_of_half_precision_are_those_of_the_same_numbers_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(8, 50, generator=generator) * 4).bfloat16()
    soft = torch.rand(8, 50, generator=generator).softmax(dim=-1)
    several = (torch.rand(8, 50, generator=generator) > 0.5).float()
    weights, labels = torch.rand(8, generator=generator), torch.arange(8)
    values, targets = logits.view(8, 5, 10), (torch.randn(8, 5, 10, generator=generator) * 4).bfloat16()
    motion = (torch.randn(8, 5, 5, 2, generator=generator) * 4).bfloat16()
    cases = {
        "classes": (cross_entropy_sum, logits, labels),
        "mixed": (soft_cross_entropy_sum, logits, soft),
        "several": (binary_cross_entropy_sum, logits, several),
        "grids": (absolute_error_sum, values, targets),
        "motion": (end_point_error_sum, logits[:, :50].view(8, 5, 5, 2), motion),
    }
    for name, (loss, answers, wanted) in cases.items():
        in_half = loss(answers, wanted, weights)
        in_full = loss(answers.float(), wanted.float() if wanted.is_floating_point() else wanted, weights)
        assert in_half.dtype == torch.float32, name
        assert torch.equal(in_half, in_full), name


def test_pixels_whose_motion_is_unknown_count_neither_as_error_nor_as_pixels() -> None:
    said = torch.zeros(1, 2, 2, 2)
    said[0, 1] = 1e6
    known = torch.full((1, 2, 2, 2), 3.0)
    known[0, 1] = torch.nan
    torch.testing.assert_close(end_point_error_sum(said, known, torch.ones(1)), torch.tensor(3.0 * 2**0.5))
    # Of one pixel alone the mean is its own error.
    single = torch.full((1, 2, 2, 2), torch.nan)
    single[0, 0, 0] = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(end_point_error_sum(said, single, torch.ones(1)), torch.tensor(5.0))
    nothing = torch.full((1, 2, 2, 2), torch.nan)
    said.requires_grad_()
    loss = end_point_error_sum(said, nothing, torch.ones(1))
    loss.backward()
    assert loss == 0
    assert said.grad is not None
    assert said.grad.isfinite().all()
