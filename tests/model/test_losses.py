"""Losses are sums whose counts are explicit."""

import torch

from model.losses import cross_entropy_sum, labelled


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


def test_half_precision_logits_are_summed_in_float32() -> None:
    loss = cross_entropy_sum(torch.zeros(2, 4, dtype=torch.bfloat16), torch.tensor([0, 1]), torch.ones(2))
    assert loss.dtype == torch.float32
