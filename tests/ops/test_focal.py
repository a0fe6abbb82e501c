"""The focal loss against torchvision and the formula, also where logits are extreme."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from maskwright.ops.focal import focal_loss, one_hot_losses


def rows(kind=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, 5, generator=generator, dtype=kind) * 4
    labels = torch.randint(0, 5, (3, 40), generator=generator)
    positive = torch.rand(3, 40, generator=generator) < 0.3
    targets = F.one_hot(labels, 5) * positive[..., None]
    return logits, labels, positive, targets.to(kind)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 1.0), (0.25, 0.5)])
def test_equal_to_torchvision(alpha, gamma):
    logits, labels, positive, targets = rows()
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    wanted = sigmoid_focal_loss(theirs, targets, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(
        focal_loss(logits, targets, alpha=alpha, gamma=gamma), wanted.detach()
    )
    found = one_hot_losses(ours, labels, positive, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(found, wanted.sum(-1))
    weights = torch.rand(found.shape, dtype=found.dtype)
    (found * weights).sum().backward()
    (wanted.sum(-1) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_without_alpha_it_is_cross_entropy():
    logits, labels, positive, targets = rows()
    found = one_hot_losses(logits, labels, positive, alpha=None)
    wanted = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
    torch.testing.assert_close(found, wanted)


def test_finite_at_extreme_logits_with_the_limits_of_the_formula():
    logits = torch.tensor([[-1e4], [-100.0], [100.0], [1e4]], requires_grad=True)
    for one in (False, True):
        positive = torch.full((4,), one)
        labels = torch.zeros(4, dtype=torch.int64)
        logits.grad = None
        found = one_hot_losses(logits, labels, positive)
        found.sum().backward()
        size = logits.detach()[:, 0].abs()
        wrong = (logits.detach()[:, 0] > 0) != one
        weight = 0.25 if one else 0.75
        # Far off, the loss is the distance, and its slope 1; of what is right nothing is left.
        torch.testing.assert_close(found.detach(), torch.where(wrong, weight * size, 0))
        slope = weight * (-1.0 if one else 1.0)
        torch.testing.assert_close(logits.grad[:, 0], torch.where(wrong, slope, 0.0))


def test_gradients_of_the_zeros_are_those_of_differences():
    logits, labels, positive, _ = rows()
    part = logits[0, :6].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: one_hot_losses(x, labels[0, :6], positive[0, :6], gamma=1.5), part
    )
